// The same request in Python and for curl, in a dialog from which it is copied.

const dialog = document.getElementById("code");
const shown = dialog.querySelector("pre");
const copied = document.getElementById("copied");

// A text as Python and JSON write it; the two agree on strings, and on lists of them.
const literal = (value) => JSON.stringify(value);

function client({ model, adapter }) {
  if (!adapter) return `base_model=${literal(model)}`;
  return adapter.startsWith("tinker://") ? `${literal(adapter)}, base_model=${literal(model)}` : literal(adapter);
}

function tokens({ kind, text, messages, cut, continued }) {
  const isOpen = messages.at(-1)?.role === "assistant";
  const how = isOpen ? "continue_final_message=True" : "add_generation_prompt=True";
  const written = messages.map((message) => `    ${literal(message)},\n`).join("");
  const first = kind === "chat" ? `tokenizer.apply_chat_template([\n${written}], ${how})` : `tokenizer.encode(${literal(text)})`;
  const kept = cut === undefined ? "" : `[:${cut}]`;
  return `tokens = ${first}${kept}\n` + (continued?.length ? `tokens += [${continued.join(", ")}]  # the branch\n` : "");
}

function sampling(request) {
  const { n, k, maxTokens, temperature, topP, topK, seed } = request;
  const drawn = seed === null ? "" : `, seed=${seed}`;
  return `${tokens(request)}params = tinker.SamplingParams(max_tokens=${maxTokens}, temperature=${temperature}, top_p=${topP}, top_k=${topK}${drawn})
prompt = tinker.ModelInput.from_ints(tokens)
response = client.sample(prompt, ${n}, params, topk_sample_logprobs=${k}).result()
for sequence in response.sequences:
    print(f"{sum(sequence.logprobs):9.4f}", repr(tokenizer.decode(sequence.tokens)))
`;
}

function scoring(request) {
  return `${tokens(request)}logprobs = client.compute_logprobs(tinker.ModelInput.from_ints(tokens)).result()
for token, logprob in zip(tokens, logprobs):  # nothing comes before the first
    print("         " if logprob is None else f"{logprob:9.4f}", repr(tokenizer.decode([token])))
`;
}

export function python(request) {
  const { task, model, other } = request;
  const open = (which) => `client = service.create_sampling_client(${client(which)})\ntokenizer = client.get_tokenizer()\n`;
  const parts = task === "sample" ? [sampling(request)] : [scoring(request)];
  const bodies = [open(model) + parts[0]];
  if (task === "compare") bodies.push(open(other) + parts[0]);
  return `import tinker_local as tinker\n\nservice = tinker.ServiceClient()\n${bodies.join("\n")}`;
}

export function curl(bodies, hasKey) {
  const key = hasKey ? ` -H "Authorization: Bearer $TINKER_LOCAL_API_KEY"` : "";
  const quoted = (body) => `'${JSON.stringify(body).replaceAll("'", `'\\''`)}'`;
  return bodies
    .map((body) => `curl -N ${location.origin}/v1/completions -H "Content-Type: application/json"${key} \\\n  -d ${quoted(body)}\n`)
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
