// The box beside a token: what the model expected there, each a button that branches.

const box = document.getElementById("alternatives");
const DELAY = 220; // ms that the mouse may be away from token and box
let leaving, anchor;

export function probability(logprob) {
  const value = Math.exp(logprob);
  return value >= 1e-4 ? `${(100 * value).toFixed(2)} %` : value.toExponential(1);
}

export function number(value, digits = 4) {
  return value.toFixed(digits).replace("-", "−");
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function head(token, vocabulary) {
  const line = make("p", "box-head");
  const name = make("bdi", "box-token");
  vocabulary.show(token.id, name, true);
  line.append(name, make("span", "tl-quiet", `id ${token.id}`));
  return line;
}

function score(token, said = "") {
  if (token.logprob === null) return make("p", "box-score", `${said}not scored: nothing comes before`);
  const place = token.top.findIndex(([id]) => id === token.id) + 1;
  const rank = place ? `   rank ${place}` : "";
  return make("p", "box-score", `${said}${number(token.logprob)}   ${probability(token.logprob)}${rank}`);
}

function rows(token, vocabulary, onBranch) {
  const list = make("ul", "box-rows");
  for (const [id, logprob] of token.top) {
    const row = make("button", id === token.id ? "box-row own" : "box-row");
    const name = make("bdi", "box-token");
    vocabulary.show(id, name, true);
    const bar = make("span", "box-bar");
    bar.style.setProperty("--share", Math.exp(logprob));
    row.type = "button";
    row.append(bar, name, make("span", "box-share", probability(logprob)));
    row.setAttribute("aria-label", `branch with ${vocabulary.label(id)}, ${probability(logprob)}`);
    row.addEventListener("click", () => {
      hide(true);
      onBranch(id, logprob);
    });
    const item = make("li", "");
    item.append(row);
    list.append(item);
  }
  return list;
}

// Show the box at an element; ``into`` moves the focus there. ``onBranch`` is told the side, the token and
// its log-probability.
export function show(span, token, vocabulary, onBranch, into = false) {
  clearTimeout(leaving);
  if (anchor !== span) {
    anchor?.classList.remove("open");
    const parts = [head(token, vocabulary)];
    if (token.other) {
      if (token.change !== null) parts.push(make("p", "box-score", `B − A   ${token.change > 0 ? "+" : ""}${number(token.change)}`));
      const sides = make("div", "box-sides");
      for (const [letter, side] of [["A", token], ["B", token.other]]) {
        const half = make("div", "");
        half.append(score(side, `${letter}   `), rows(side, vocabulary, (...other) => onBranch(letter, ...other)));
        sides.append(half);
      }
      parts.push(sides);
    } else {
      parts.push(score(token), rows(token, vocabulary, (...other) => onBranch("A", ...other)));
    }
    if (token.top.length) parts.push(make("p", "box-hint", "choose one to branch here"));
    box.classList.toggle("wide", Boolean(token.other));
    box.replaceChildren(...parts);
    anchor = span;
    anchor.classList.add("open");
    box.hidden = false;
    place(span);
  }
  if (into) box.querySelector("button")?.focus();
}

function place(span) {
  const lines = span.getClientRects();
  const at = lines[lines.length - 1];
  const { width, height } = box.getBoundingClientRect();
  const below = at.bottom + 6 + height < innerHeight || at.top - 6 - height < 0;
  const top = below ? Math.min(at.bottom + 6, innerHeight - height - 8) : at.top - height - 6;
  box.style.left = `${Math.max(8, Math.min(at.left - 8, innerWidth - width - 8))}px`;
  box.style.top = `${Math.max(8, top)}px`;
}

export function hide(returnFocus = false) {
  clearTimeout(leaving);
  if (returnFocus) anchor?.focus({ preventScroll: true });
  anchor?.classList.remove("open");
  anchor = undefined;
  box.hidden = true;
}

function leave() {
  clearTimeout(leaving);
  leaving = setTimeout(() => {
    if (!box.contains(document.activeElement)) hide();
  }, DELAY);
}

document.addEventListener("mouseover", ({ target }) => {
  if (box.hidden) return;
  if (box.contains(target) || anchor?.contains(target)) clearTimeout(leaving);
  else if (anchor !== document.activeElement) leave();
});
document.addEventListener("scroll", (event) => event.target !== box && !box.hidden && hide(), true);
document.addEventListener("keydown", (event) => {
  if (box.hidden) return;
  const buttons = [...box.querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement);
  if (event.key === "Escape") hide(at >= 0);
  else if (at >= 0 && event.key === "ArrowDown") buttons[Math.min(at + 1, buttons.length - 1)].focus();
  else if (at > 0 && event.key === "ArrowUp") buttons[at - 1].focus();
  else if (at === 0 && event.key === "ArrowUp") hide(true);
  else return;
  event.preventDefault();
});
document.addEventListener("focusin", ({ target }) => {
  if (!box.hidden && !box.contains(target) && !target.closest(".tl-t")) hide();
});
document.addEventListener("click", ({ target }) => {
  if (!box.hidden && !box.contains(target) && !target.closest(".tl-t")) hide();
});
