// The recipe in a PNG: an iTXt chunk named "lavibridge" that holds JSON. Read here, sent nowhere.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const NAME = "lavibridge";

export async function readRecipe(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (!SIGNATURE.every((byte, place) => bytes[place] === byte)) throw new Error("This is no PNG.");
  const view = new DataView(bytes.buffer);
  const text = new TextDecoder();
  for (let place = 8; place + 12 <= bytes.length; ) {
    const length = view.getUint32(place);
    const body = bytes.subarray(place + 8, place + 8 + length);
    if (text.decode(bytes.subarray(place + 4, place + 8)) === "iTXt") {
      const found = uncompressed(body, text);
      if (found !== null) return JSON.parse(found);
    }
    place += length + 12;
  }
  throw new Error("This PNG holds no recipe: it was drawn elsewhere, or without one.");
}

// name 0 compressed(1) method(1) language 0 translated-name 0 text
function uncompressed(body, text) {
  const end = body.indexOf(0);
  if (text.decode(body.subarray(0, end)) !== NAME || body[end + 1] !== 0) return null;
  const language = body.indexOf(0, end + 3);
  const translated = body.indexOf(0, language + 1);
  return text.decode(body.subarray(translated + 1));
}
