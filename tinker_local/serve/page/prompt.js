// The prompt: a text as it is, or a conversation by the model's chat template.

import { post } from "/page/server.js";

export function messages() {
  return [...document.querySelectorAll(".message")].map((message) => ({
    role: message.querySelector("select").value,
    content: message.querySelector("textarea").value,
  }));
}

export function addMessage(role = "user", content = "") {
  const fragment = document.getElementById("message").content.cloneNode(true);
  const message = fragment.querySelector(".message");
  message.querySelector("select").value = role;
  message.querySelector("textarea").value = content;
  message.querySelector(".remove").addEventListener("click", () => {
    message.remove();
    document.getElementById("add-message").focus();
  });
  document.getElementById("messages").append(fragment);
  return message;
}

export async function promptOf({ kind, text, messages }, model, signal) {
  if (kind === "plain") return (await post("/tokenize", { model, prompt: text }, signal)).tokens;
  const isOpen = messages.at(-1)?.role === "assistant";
  const how = isOpen ? { add_generation_prompt: false, continue_final_message: true } : { add_generation_prompt: true };
  return (await post("/tokenize", { model, messages, ...how }, signal)).tokens;
}
