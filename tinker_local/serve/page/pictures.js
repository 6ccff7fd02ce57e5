// Pictures of a prompt or a message: chosen, dropped or pasted, shown small, and taken out again.

const TYPES = { "image/png": "png", "image/jpeg": "jpeg" };
const MOST_BYTES = 45e6; // of all pictures: a request has at most 64 MiB, and base64 makes four bytes of three
const lists = new Map(); // place -> its Pictures, which holds {name, format, url, size}

export function picturesOf(place) {
  return [...lists.get(place).pictures.values()];
}

export function thumbnail({ name, url }) {
  const image = document.createElement("img");
  image.className = "thumbnail";
  image.src = url;
  image.alt = image.title = name;
  return image;
}

function readUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read: ${reader.error.message}`));
    reader.readAsDataURL(file);
  });
}

async function readPicture(file) {
  const format = TYPES[file.type];
  if (!format) throw new Error(`${file.name} is neither PNG nor JPEG`);
  const picture = { name: file.name, format, url: await readUrl(file), size: file.size };
  const shown = thumbnail(picture);
  await shown.decode().catch(() => { throw new Error(`${file.name} is broken: it cannot be decoded`); });
  return [picture, shown];
}

class Pictures {
  constructor(place) {
    const fragment = document.getElementById("pictures").content.cloneNode(true);
    this.place = place;
    this.list = fragment.querySelector("ul");
    this.pictures = new Map(); // by their elements, in order
    const input = fragment.querySelector("input");
    input.addEventListener("change", () => {
      this.add([...input.files]);
      input.value = "";
    });
    place.append(fragment);
  }

  async add(files) {
    for (const file of files) {
      try {
        const all = [...lists.values()].flatMap(({ pictures }) => [...pictures.values()]);
        const size = all.reduce((sum, picture) => sum + picture.size, file.size);
        if (size > MOST_BYTES) throw new Error(`${file.name}: with it, the pictures have ${size.toLocaleString("en")} bytes; at most ${MOST_BYTES.toLocaleString("en")} can be sent`);
        this.#put(...(await readPicture(file)));
      } catch (error) {
        this.place.dispatchEvent(new CustomEvent("problem", { bubbles: true, detail: error.message }));
        return;
      }
    }
    this.#changed();
  }

  #put(picture, shown) {
    const item = document.getElementById("picture").content.cloneNode(true).querySelector("li");
    const remove = item.querySelector("button");
    remove.setAttribute("aria-label", `Remove ${picture.name}`);
    remove.addEventListener("click", () => {
      item.remove();
      this.pictures.delete(item);
      this.place.querySelector("[type=file]").focus();
      this.#changed();
    });
    item.prepend(shown);
    this.list.append(item);
    this.pictures.set(item, picture);
  }

  #changed() {
    this.place.dispatchEvent(new Event("change", { bubbles: true }));
  }
}

// Let a place of the form have pictures.
export function takePictures(place) {
  place.classList.add("takes-pictures");
  lists.set(place, new Pictures(place));
}

export function forgetPictures(place) {
  lists.delete(place);
}

// What is dropped or pasted beside all places belongs to the last one that is shown.
function placeOf(element) {
  const shown = [...lists.keys()].filter((place) => place.offsetParent);
  return lists.get(element?.closest?.(".takes-pictures") ?? shown.at(-1));
}

function hasFiles({ dataTransfer }) {
  return dataTransfer?.types.includes("Files");
}

document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
for (const end of ["dragleave", "drop"]) document.addEventListener(end, () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault(); // else the browser opens the file in place of the page
  placeOf(event.target).add([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  placeOf(document.activeElement).add([...event.clipboardData.files]);
});
