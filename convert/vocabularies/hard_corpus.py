# ruff: noqa: E501, RUF001 - whole texts, in many scripts
"""Texts on which tokenizers that are almost the same differ; our own words.

Characters are those of Unicode 15.1 and older: llama.cpp's tables know no newer ones. Every text can be
written in UTF-8.
"""

from __future__ import annotations

SCRIPTS = (
    "The quick brown fox can't jump over 13 lazy dogs; it's WE'VE she'll THEY'RE I'm he'd o'clock 'tis",
    "Les élèves naïfs ont déjà mangé ; où êtes-vous ? ŒUVRE, Œdipe, aujourd'hui, L'ÉTÉ, l'été",
    "Größe, Straße, ÜBERMUT, überÜber, ÄrgerÄrger, ẞ ß; ñandú ÑANDÚ, pingüino, ¿qué? ¡ay!",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl. Çalışmadı, ığdır İSTANBUL. Đường phố Việt Nam",
    "e\u0301te\u0301 cafe\u0301 n\u0303 A\u030angstro\u0308m o\u0302\u0323 \u0301x a\u0301\u0302\u0303b q\u0307\u0323",
    "Съешь же ещё этих мягких булок, ЙОД и йод, ЁлкаЁлка, МоскваРека, об'єкт п'ять",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, ΑΘΗΝΑ, άσΣς ς, ᾳ ᾼ",
    "النص العربي بدون تشكيل والأرقام ١٢٣٤٥ و مُحَمَّدٌ رَسُولٌ، هل هذا؟",
    "שלום עולם, עם ניקוד: שָׁלוֹם עֲלֵיכֶם; מספרים 12 ו-345",
    "हिन्दी में लिखना कठिन नहीं है। क्षत्रिय १२३४ ज्ञान, স্বাধীনতা বাংলা, ਪੰਜਾਬੀ, ગુજરાતી, தமிழ் மொழி, తెలుగు",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ เก้าอี้ ๑๒๓ ລາວ ខ្មែរ မြန်မာ བོད་ཡིག",
    "中文没有空格，标点是全角的。第１２章《红楼梦》：「真的吗？」〇一二三 々 龍龘 𠮷野家 㐂",
    "日本語のテキストで、カタカナとひらがなと漢字。ﾊﾝｶｸ ｶﾞ ヴァー 々〆 ABC日本",
    "한국어 문장은 띄어쓰기가 있다. 가나다라 ㄱㄴㄷ 한\u1112\u1161\u11ab 漢字",
    "ქართული ᲥᲐᲠᲗᲣᲚᲘ Հայերեն է։ አማርኛ ᏣᎳᎩ ꮳꮃꭹ ᓀᐦᐃᔭᐍᐏᐣ ᠮᠣᠩᠭᠣᠯ 𐐀𐐨 𝔘𝔫𝔦 𝟘𝟙𝟚 ﬁ ﬀ Ǆ ǅ ǆ ʰ ˈ",
    "mixАвcд with Αlpha βeta and 中en文 and 12абв34 x²y³ H₂O Ⅷ ½ ① ٣3३",
)

EMOJI = (
    "😀😂🤣 👍👍🏽👍🏿 👩‍👩‍👧‍👦 👨🏾‍🚀 🏳️‍🌈 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f 🇫🇷🇩🇪 ❤️ ❤ ☎️ 1️⃣ #️⃣",
    "no🎉space🎉between a😀b 😀 😀  😀\n😀",
    "→←↑↓ ≤≥≠≈ ∑∫√∞ €£¥₹₿ ©®™ …—–‐ “quoted” ‘single’ «g» „d“ ‚s‘ ′″ •‣ ■□ ☃ ♠♥ ⚡️ ␀ ∀x∈ℝ: x²≥0",
)

CODE = (
    "def f(x: int) -> int:\n    if x > 0:\n        return x ** 2  # comment\n\n\nclass A:\n\tpass\n",
    '#include <stdio.h>\nint main(void) {\n\t/* block\n\t   comment */\n\tprintf("%d\\n", 0x1F);\n\n\n\treturn 0;\n}\n/* end */\n',
    "};\n/* a */\n// b\r\n///c\n\n/// d\n*/\n);/\n/usr/bin !!\n/?",
    "const f = async (a, b) => { await g(`${a}_${b}`); } // JS\nlet x=[1,2,...y];x?.z??0;",
    "SELECT a.id, COUNT(*) FROM t AS a WHERE a.x >= 1.5e-9 AND b <> 'it''s' GROUP BY 1;--end",
    "<div class=\"a b\"><p style='x:1'>&lt;tag&gt;</p></div><!-- c --><br/><table><tr></tr></table>",
    '{"key": [1, 2.50, -3e10, null, true], "ünï": "\\u00e9\\n", "nested": {"a": {}}}',
    "\\begin{equation}\\frac{a}{b} = \\sum_{i=1}^{n} x_i^2\\end{equation} $$\\alpha$$",
    'fn main() -> Result<(), Box<dyn Error>> { let v: Vec<&\'a str> = s.split("::").collect(); Ok(()) }',
    '#!/bin/sh\nfor f in *.txt; do echo "$f" | sed \'s/a/b/g\' >> "${HOME}/out" 2>&1; done\n\techo $?',
    "camelCaseWord PascalCaseWord snake_case_word SCREAMING_SNAKE kebab-case-word XMLHttpRequest iOS17 getHTTPResponseCode2XX",
    "if(a){b}else{c}  ;;  ==  ===  !==  <=>  ->  =>  ::  ...  ??  ||  &&  <<  >>  >>>  **  //  /*  */  +=  |>",
)

NUMBERS = (
    "0 1 12 123 1234 12345 123456 1234567 12345678 123456789 1234567890",
    "1,234,567.89 1.234.567,89 1 234 567 1_000_000 0x7fffffff 0b1010 1e-10 -3.14 +42 5% $9.99 10€ 3×4",
    "3.14159265358979323846264338327950288419716939937510" * 2,
    "2024-02-29T23:59:60.123Z 12:34:56 v1.2.3-rc4 192.168.0.1 ::1 +1 (555) 010-9999 A1B2C3 1st 2nd 10th",
    "१२३४५६ ٠١٢٣٤٥٦٧٨٩ ๑๒๓๔ 〇一二三 １２３４ ⅠⅡⅢⅣ ①②③④⑤ ½⅓¼ x1y22z333w4444",
)

WHITESPACE = (
    "",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\n\n\n",
    "\t",
    "\t\t\t",
    "\r\n",
    "\r",
    " \n",
    "\n ",
    " \n \n ",
    " a",
    "  a",
    "   a",
    "a ",
    "a  ",
    "a   ",
    "a  b   c    d     e      f       g        h                h",
    "line\n line\n  line\n   line\n\n    line\n\n\n\tline\n\t\tline \n  \n\nend\n",
    "dos\r\nlines\r\n\r\nand\rold mac\r\r\n\n\r",
    "a\u00a0b \u00a0 c\u2003d\u2009e\u3000f\u3000\u3000g\u200bh\ufeffi\u2028j\u2029k\u0085l\u180em\u202fn\u1680o",
    "tab\tand  two \t mixed\t \t \u00a0\n\u3000\n end \t",
    "word" + " " * 40 + "word" + "\n" * 20 + "word" + "\t" * 17 + "." + " " * 100,
    "!\n?\n\n!!\n\n\n? \n! \r\n.\n,\r\n\r\n-",
    "\u2581 \u2581\u2581 a\u2581b literal lower one eighth block",
)

ODD = (
    "\x00\x01\x02 \x07\x08\x0b\x0c\x0e\x1b[31m\x1f\x7f\x80\x9f \x04\x06",
    "a\x00b\x00\x00c",
    "\ue000\ue001 \uf8ff \U000f0000 \U0010fffd private",
    "\ufffd \ufffe \uffff \U0001fffe non-characters",
    "\u200d\u200c\u200e\u200f\u202a\u202c\u2066\u2069 joiners and marks \u00ad soft\u00adhyphen",
    "\u0301\u0302 marks first; \u0301a \u0300\u0301\u0302\u0303\u0304\u0305\u0306 Z̸̢a̵͝l̶̕g̷̛o̸",
    "\U0001d400\U0001d401 \U00010400 \U00012000\U00012001 \U00013000 \U00020000\U0002a6d6 \U00030000",
    "Pneumonoultramicroscopicsilicovolcanoconiosis" * 4,
    "a" * 300 + "B" * 300 + "é" * 100 + "中" * 200 + "!" * 200 + "ก" * 60,
    "aAbBcCdDeEfFgGhHiIjJkK AAaaAA aaAAaa AaAaAa ÀàÀà àÀàÀ ЖжЖж жЖжЖ",
    "'s 'S 't 'T 're 'RE 've 'm 'll 'LL 'd 'D '' ''' 'x '1 ' 's's 'rea 'vex 'lll don't' DON'T Don'T you'Re",
    "it’s don’t we’re ‘tis “he’ll” 's’s O'Neil rock'n'roll y'all'd've",
    "?!?!... --- *** ### ~~~ ``` ___ === +++ ((([[[{{{<<<>>>}}}]]]))) ;;;:::,,, @@@ %%% ^^^ &&& ||| \\\\\\ ///",
    ".hidden _private -flag --long-flag /path/to/file.txt C:\\Users\\x\\y.txt ~/a/../b ./c $VAR ${VAR} #hash @user &amp;",
    "https://user:pass@example.org:8080/a/b_c-d/?q=1&r=%20é#frag mailto:a.b+c@example.co.uk ftp://x",
    "(a)[b]{c}<d>\"e\"'f'`g`*h*_i_~j~|k|^l^=m=+n+-o-.p.,q,;r;:s:!t!?u?/v/\\w\\@x@#y#$z$%%&&",
    "a.b.c d,e,f g;h;i j:k:l m!n!o p?q?r s-t-u v_w_x y/z/0 1\\2\\3",
    "¡Hola!¿Qué?…—dash–en «a»‹b›“c”‘d’„e‚ §¶†‡•·°ªº¹²³¼ ￥＄！＃（）",
    "x\u0301\u0302y 각\u11a8 ก็ ที่ กำ नि क्‍ष ල්‍ය",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor.",
)

MARKUP = (
    "<|endoftext|>",
    "text<|endoftext|>more <|endoftext|> end",
    "<|im_start|>user\nHello there<|im_end|>\n<|im_start|>assistant\n",
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>",
    "<s>[INST] Hello [/INST] Hi</s> <s> [INST]x[/INST]",
    "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "<｜begin▁of▁sentence｜>You are kind.<｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜>",
    "<|start|>assistant<|channel|>final<|message|>Hi<|return|><|call|><|end|>",
    "<|user|>\nHi<|end|>\n<|assistant|>\n <|system|>  two<|end|>x",
    "<think>\nhmm\n</think>\n\n<tool_call>{}</tool_call>",
    "<|im_user|>user<|im_middle|>Hi<|im_end|>[BOS][EOS][PAD][UNK][EOT]",
    "<unk> <pad> <mask> <0x0A> <0xFF> <|not_a_token|> <|im_start <|im_start|<|im_end|>|> [PAD5] <unused0>",
)

HARD_CORPUS: tuple[str, ...] = SCRIPTS + EMOJI + CODE + NUMBERS + WHITESPACE + ODD + MARKUP
