// Pictures that were drawn, kept in this browser (IndexedDB): {id, time, png, recipe, verdict, used, cut}.

const STORE = "pictures";

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("lavibridge", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function within(mode, action) {
  const database = await opened();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = action(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

const MOST = 300;

export async function keep(picture) {
  await within("readwrite", (store) => store.put(picture));
  const old = (await all()).slice(MOST);
  await Promise.all(old.map(({ id }) => drop(id)));
}

export const drop = (id) => within("readwrite", (store) => store.delete(id));
export const clear = () => within("readwrite", (store) => store.clear());
export const all = async () =>
  (await within("readonly", (store) => store.getAll())).sort((a, b) => b.time - a.time);
