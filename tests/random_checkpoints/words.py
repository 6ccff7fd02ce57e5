# ruff: noqa: RUF001 - many scripts have characters that look alike
"""The text that the tests' tokenizers are trained on: our own words, in many scripts."""

from __future__ import annotations

TEXT = """\
The river was high that spring, and the ferry's old engine wouldn't start. We'd waited since 06:45; they'll
say it's nothing new, but I'm sure the captain's nephew could've fixed it in 10 minutes (or 20). "Don't ask
me," he said, "I've only 3,150 left."  HelloWorld, camelCase, snake_case_name and SCREAMING_CASE met iPhone.
    def area(width: int, height: int) -> int:
        return width * height  # in square metres
\tfor (int i = 0; i < 100; ++i) { sum += a[i]; }
<div class="note"><p>Price: $1,299.99 &amp; tax 19%</p></div>
SELECT name, COUNT(*) FROM boats WHERE year >= 1987 GROUP BY name;
https://example.org/a/b?c=d&e=%20f#g  mail@example.org  192.168.0.1  2024-02-29T23:59:60Z
Der Fluß führte Hochwasser, und die alte Fähre fuhr überhaupt nicht; ÜBERALL standen Wagen. Straße, Größe.
La rivière était haute ; l'été, le bac coûtait déjà très cher à l'élève naïve. Où êtes-vous allés, Noël ?
El río venía crecido: ¿cuánto costará mañana? ¡Qué lástima, señor! Corazón, pingüino, acción.
Rzeka była wysoka, więc łódź źle płynęła; żółć, gęś, jaźń. Řeka byla příliš žlutá, kůň úpěl.
Nehir yüksekti, gemi çalışmadı; ığdır, şöyle böyle. Sông dâng cao, đò không chạy được nữa rồi.
Река была высокой, и старый паром не завёлся. Мы ждали с шести часов; капитан ничего не сказал. Ёлка, объём.
Ο ποταμός ήταν ψηλός και το παλιό πλοίο δεν ξεκίνησε. Περιμέναμε από τις έξι.
النهر كان عاليا والعبارة القديمة لم تعمل. انتظرنا منذ السادسة ٣٤٥ صباحًا، ولم يقل القبطان شيئًا.
הנהר היה גבוה והמעבורת הישנה לא התניעה. שָׁלוֹם עֲלֵיכֶם.
नदी ऊँची थी और पुरानी नाव नहीं चली। हम छह बजे से रुके थे; कप्तान ने कुछ नहीं कहा। हिन्दी में १२३।
แม่น้ำสูงและเรือข้ามฟากเก่าไม่ติดเครื่อง เรารอตั้งแต่หกโมงเช้า ภาษาไทยไม่มีช่องว่าง
河水很高，老渡船的发动机发动不了。我们从六点等到现在，船长什么也没说。中文没有空格。
川の水位が高く、古いフェリーのエンジンがかからなかった。六時から待っている。カタカナとひらがな。
강물이 높았고 낡은 나룻배는 시동이 걸리지 않았다. 우리는 여섯 시부터 기다렸다. 한국어 문장입니다.
נ ქართული ენა ძველია։ Հայերենը հին լեզու է։ አማርኛ ቋንቋ ነው። தமிழ் மொழி பழமையானது।
😀 😂 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 ❤️ 🎉🎉 → ← ≤ ≥ ≠ ∑ ∞ √ € £ ¥ © ® ™ … — “quoted” ‘single’ «guillemets»
== === ==== ----- +++++ ***** ##### //// \\\\\\\\ .... !!!! ???? ((( ))) [[ ]] {{ }} <<>> ~~ ``` ___
0 1 2 3 4 5 6 7 8 9 10 11 12 100 123 1000 1234 12345 123456 1234567 3.14159265 0x7fff 1e-9 ½ ² Ⅷ
a  b   c    d     e      f        g\t\th\t\t\ti \r\n next \r\n\r\n end
"""
"""About four thousand characters; lines are what a trainer sees one at a time."""


def sentences() -> list[str]:
    """Return the lines with their ends, and the whole as one, so that line breaks are learnt too."""
    return [*TEXT.splitlines(keepends=True), TEXT]
