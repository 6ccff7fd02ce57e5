// The same request in Python and for curl, in a dialog from which it is copied.

import { chunksOf, isPicture } from "/page/prompt.js";

const MARK = "(the bytes of a picture)";
const dialog = document.getElementById("code");
const shown = dialog.querySelector("pre");
const copied = document.getElementById("copied");

// A text as Python and JSON write it; the two agree on strings, and on lists of them.
const literal = (value) => JSON.stringify(value);

function client({ model, adapter }) {
  if (!adapter) return `base_model=${literal(model)}`;
  return adapter.startsWith("tinker://") ? `${literal(adapter)}, base_model=${literal(model)}` : literal(adapter);
}

// Lines that make a prompt: of what was written, or of the ids and pictures themselves where there are pictures.
function promptLines({ kind, text, messages, prompt, cut, continued = [] }) {
  if (prompt?.some(isPicture)) {
    const chunks = chunksOf([...prompt.slice(0, cut), ...continued]).map((chunk) => `    ${chunkOf(chunk)},\n`);
    return `prompt = tinker.ModelInput(chunks=[\n${chunks.join("")}])\n`;
  }
  const isOpen = messages.at(-1)?.role === "assistant";
  const how = isOpen ? "continue_final_message=True" : "add_generation_prompt=True";
  const written = messages.map(({ role, content }) => `    ${literal({ role, content })},\n`).join("");
  const first = kind === "chat" ? `tokenizer.apply_chat_template([\n${written}], ${how})` : `tokenizer.encode(${literal(text)})`;
  const kept = cut === undefined ? "" : `[:${cut}]`;
  const branch = continued.length ? `tokens += [${continued.join(", ")}]  # the branch\n` : "";
  return `tokens = ${first}${kept}\n${branch}prompt = tinker.ModelInput.from_ints(tokens)\n`;
}

function chunkOf(chunk) {
  if (Array.isArray(chunk)) return `tinker.EncodedTextChunk(tokens=[${chunk.join(", ")}])`;
  return `tinker.ImageChunk(data=Path(${literal(chunk.name)}).read_bytes(), format=${literal(chunk.format)})`;
}

function sampling({ n, k, maxTokens, temperature, topP, topK, seed }) {
  const drawn = seed === null ? "" : `, seed=${seed}`;
  return `params = tinker.SamplingParams(max_tokens=${maxTokens}, temperature=${temperature}, top_p=${topP}, top_k=${topK}${drawn})
response = client.sample(prompt, ${n}, params, topk_sample_logprobs=${k}).result()
for sequence in response.sequences:
    print(f"{sum(sequence.logprobs):9.4f}", repr(tokenizer.decode(sequence.tokens)))
`;
}

const SCORING = `logprobs = client.compute_logprobs(prompt).result()
for token, logprob in zip(tokens, logprobs):  # nothing comes before the first
    print("         " if logprob is None else f"{logprob:9.4f}", repr(tokenizer.decode([token])))
`;
const SCORING_WITH_PICTURES = "print(client.compute_logprobs(prompt).result())  # None at the tokens of pictures\n";

function body(request, model) {
  const open = `client = service.create_sampling_client(${client(model)})\ntokenizer = client.get_tokenizer()\n`;
  const scoring = request.prompt?.some(isPicture) ? SCORING_WITH_PICTURES : SCORING;
  return open + promptLines(request) + (request.task === "sample" ? sampling(request) : scoring);
}

export function python(request) {
  const { task, model, other, prompt, otherPrompt } = request;
  const bodies = [body(request, model)];
  if (task === "compare") bodies.push(body({ ...request, prompt: otherPrompt }, other));
  const path = prompt?.some(isPicture) ? "from pathlib import Path\n\n" : "";
  return `${path}import tinker_local as tinker\n\nservice = tinker.ServiceClient()\n${bodies.join("\n")}`;
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

// With pictures the body comes from a here document: of one argument Linux takes 128 KiB.
function data(body, pictures) {
  if (!pictures.length) return `-d ${quoted(JSON.stringify(body))}`;
  const encoded = pictures.map(({ name }) => `$(base64 < ${quoted(name)} | tr -d '\\n')`).values();
  const parts = JSON.stringify(body, (key, value) => (key === "data" ? MARK : value)).replace(/[\\$`]/g, "\\$&").split(MARK);
  return `-d @- <<END\n${parts.map((part, i) => (i ? encoded.next().value : "") + part).join("")}\nEND`;
}

export function curl(bodies, pictures, hasKey) {
  const key = hasKey ? ` -H "Authorization: Bearer $TINKER_LOCAL_API_KEY"` : "";
  return bodies
    .map((body) => `curl -N ${location.origin}/v1/completions -H "Content-Type: application/json"${key} \\\n  ${data(body, pictures)}\n`)
    .join("\n");
}

export function showCode(title, code) {
  document.getElementById("code-title").textContent = title;
  shown.textContent = code;
  copied.textContent = "";
  dialog.showModal();
  document.getElementById("copy").focus();
}

async function copy() {
  try {
    await navigator.clipboard.writeText(shown.textContent);
    copied.textContent = "copied";
  } catch { // a page that is not on this machine, or no permission
    getSelection().selectAllChildren(shown);
    copied.textContent = "selected; press Ctrl C";
  }
}

document.getElementById("copy").addEventListener("click", copy);
document.getElementById("close-code").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
