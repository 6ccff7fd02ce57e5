// The server: requests with the key, answers as JSON, streams of server-sent events.

let key = "";

export function setKey(text) {
  key = text.trim();
}

export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, body, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  const method = body === undefined ? "GET" : "POST";
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Refusal(answer.status, said.error?.message ?? `the server answered ${answer.status}`);
}

export async function get(path) {
  return (await ask(path)).json();
}

export async function getText(path) {
  return (await ask(path)).text();
}

export async function post(path, body, signal) {
  return (await ask(path, body, signal)).json();
}

// Yield the events of a stream; an error in it is thrown.
export async function* stream(path, body, signal) {
  const answer = await ask(path, { ...body, stream: true }, signal);
  let rest = "";
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      const event = JSON.parse(line.slice("data: ".length));
      if (event.error) throw new Refusal(event.error.code, event.error.message);
      yield event;
    }
  }
}
