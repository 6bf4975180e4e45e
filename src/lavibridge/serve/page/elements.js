// Making elements; text is only ever set as text, never as HTML.

export const find = (id) => document.getElementById(id);

export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

const shown = new WeakMap();

// Shows a blob; the address of the one before is given back.
export function showBlob(image, blob) {
  URL.revokeObjectURL(shown.get(image));
  const address = URL.createObjectURL(blob);
  shown.set(image, address);
  image.onload = () => image.classList.toggle("small", image.naturalWidth <= 128);
  image.src = address;
}

export const kept = (verdict) => Object.values(verdict).every((clause) => clause.holds);

export function cell(picture, opens) {
  const image = make("img", { alt: `${picture.recipe.prompt}, seed ${picture.recipe.seed}, by ${picture.recipe.model}`, loading: "lazy" });
  showBlob(image, picture.png);
  const label = make("span", {}, picture.recipe.prompt);
  const button = make("button", { type: "button", className: "cell", title: picture.recipe.prompt }, image, label);
  button.addEventListener("click", () => opens(picture));
  return button;
}
