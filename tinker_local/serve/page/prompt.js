// The prompt: token ids and pictures in a row, made of a text or, by the model's chat template, of messages.

import { forgetPictures, picturesOf, takePictures } from "/page/pictures.js";
import { post } from "/page/server.js";

export function messages() {
  return [...document.querySelectorAll(".message")].map((message) => ({
    role: message.querySelector("select").value,
    content: message.querySelector("textarea").value,
    pictures: picturesOf(message),
  }));
}

export function addMessage(role = "user", content = "") {
  const fragment = document.getElementById("message").content.cloneNode(true);
  const message = fragment.querySelector(".message");
  message.querySelector("select").value = role;
  message.querySelector("textarea").value = content;
  message.querySelector(".remove").addEventListener("click", () => {
    forgetPictures(message);
    message.remove();
    document.getElementById("add-message").focus();
  });
  takePictures(message);
  document.getElementById("messages").append(fragment);
  return message;
}

export function isPicture(item) {
  return typeof item === "object";
}

// The pictures of what was asked, in their order.
export function picturesIn({ kind, pictures, messages }) {
  return kind === "plain" ? pictures : messages.flatMap((message) => message.pictures);
}

function written({ role, content, pictures }) {
  if (!pictures.length) return { role, content };
  const parts = pictures.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return { role, content: [...parts, { type: "text", text: content }] };
}

function asWritten({ kind, text, pictures, messages }) {
  if (kind === "plain") return { prompt: text, images: pictures.map(({ url }) => url) };
  const isOpen = messages.at(-1)?.role === "assistant";
  const how = isOpen ? { add_generation_prompt: false, continue_final_message: true } : { add_generation_prompt: true };
  return { messages: messages.map(written), ...how };
}

export async function promptOf(asked, model, signal) {
  const { tokens, chunks } = await post("/tokenize", { model, ...asWritten(asked) }, signal);
  const pictures = picturesIn(asked).values();
  return chunks ? chunks.flatMap((chunk) => chunk.tokens ?? [pictures.next().value]) : tokens;
}

// Runs of token ids, and pictures between them.
export function chunksOf(prompt) {
  const chunks = [];
  for (const item of prompt) {
    if (isPicture(item)) chunks.push(item);
    else if (Array.isArray(chunks.at(-1))) chunks.at(-1).push(item);
    else chunks.push([item]);
  }
  return chunks;
}

// A prompt as the server takes it: token ids, or Tinker's chunks where there are pictures.
export function sent(prompt) {
  if (!prompt.some(isPicture)) return prompt;
  return chunksOf(prompt).map((chunk) => {
    if (Array.isArray(chunk)) return { type: "encoded_text", tokens: chunk };
    return { type: "image", data: chunk.url.slice(chunk.url.indexOf(",") + 1), format: chunk.format };
  });
}
