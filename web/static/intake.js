// The ways in for a photo: choose, drop, paste, or name its address.

import { byId } from "./dom.js";

const isAddress = (text) => /^https?:\/\/\S+$/i.test(text.trim());
const isTyping = (target) => target.closest?.("input:not([type=file]), textarea, select");

/** The photo, or the address of one, that a drop or a paste carries. */
function sourceIn(transfer) {
  const file = [...transfer.files][0];
  if (file) return { kind: "photo", file };
  const text = (transfer.getData("text/uri-list") || transfer.getData("text/plain")).split("\n")[0];
  return isAddress(text) ? { kind: "url", url: text.trim() } : null;
}

/**
 * @param {(source) => void} onSource called with {kind: "photo", file} or {kind: "url", url}.
 * @param {() => boolean} isElsewhere whether another part of the page (a dialog) takes drops and pastes now.
 */
export function createIntake(onSource, isElsewhere) {
  const chooser = byId("photo");
  for (const button of document.querySelectorAll(".choose")) button.addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    const [file] = chooser.files;
    chooser.value = ""; // so that choosing the same file again is a change, too
    if (file) onSource({ kind: "photo", file });
  });

  byId("url-form").addEventListener("submit", (event) => {
    event.preventDefault();
    onSource({ kind: "url", url: byId("url").value.trim() });
  });

  document.addEventListener("paste", (event) => {
    if (isElsewhere()) return;
    const source = sourceIn(event.clipboardData);
    if (!source || (source.kind === "url" && isTyping(event.target))) return;
    event.preventDefault();
    onSource(source);
  });

  // The whole window takes a drop: a photo that misses the box by a bit must not navigate the page away.
  const veil = (isOn) => document.body.toggleAttribute("data-dragging", isOn && !isElsewhere());
  document.addEventListener("dragover", (event) => { event.preventDefault(); veil(true); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) veil(false); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    veil(false);
    if (isElsewhere()) return;
    const source = sourceIn(event.dataTransfer);
    if (source) onSource(source);
  });
}
