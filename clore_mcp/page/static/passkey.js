// Has the person's passkey sign the question, or registers one; the form then carries what the browser answered.
"use strict";

const begin = async (path) => {
  const reply = await fetch(path, { method: "POST" });
  if (!reply.ok) throw new Error("The page gave nothing to sign.");
  return reply.json();
};

const ways = {
  passkey: async (form) => {
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(await begin(form.dataset.passkey));
    form.elements.assertion.value = JSON.stringify(await navigator.credentials.get({ publicKey }));
  },
  register: async (form) => {
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(await begin(form.dataset.register));
    form.elements.credential.value = JSON.stringify(await navigator.credentials.create({ publicKey }));
  },
};

document.addEventListener("submit", async (event) => {
  const form = event.target;
  const way = form.dataset.passkey ? ways.passkey : form.dataset.register ? ways.register : null;
  if (!way) return;
  event.preventDefault();
  const said = form.querySelector("[data-said]");
  said.hidden = true;
  try {
    await way(form);
    form.submit();
  } catch (error) {
    said.textContent = "Nothing was done: " + error.message;
    said.hidden = false;
  }
});
