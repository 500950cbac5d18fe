// A crop rectangle over the preview: drawn, moved and resized by pointer (mouse, touch, pen) or keys.
// Everything is in fractions of the picture, so that resizing the window changes nothing.

const LEAST = 0.06; // smaller is a slip of the hand, and too few pixels to search with
const STEP = 0.02;
const KEYS_SETTLE_MS = 500; // a person pressing arrows shouldn't start a search per key
const WHOLE = { x: 0, y: 0, width: 1, height: 1 };

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const isWhole = (box) => box.width >= 0.999 && box.height >= 0.999;
const percent = (value) => `${Math.round(value * 100)}%`;

function between(a, b) {
  return { x: Math.min(a.x, b.x), y: Math.min(a.y, b.y), width: Math.abs(a.x - b.x), height: Math.abs(a.y - b.y) };
}

function moved(box, dx, dy) {
  return { ...box, x: clamp(box.x + dx, 0, 1 - box.width), y: clamp(box.y + dy, 0, 1 - box.height) };
}

/** The corner that stays where it is while `edge` is dragged. */
function anchorOf(box, edge) {
  return { x: edge.includes("w") ? box.x + box.width : box.x, y: edge.includes("n") ? box.y + box.height : box.y };
}

/**
 * @param {{stage: HTMLElement, frame: HTMLElement, reset: HTMLButtonElement, onChange: (crop) => void}} parts
 *   onChange is called when the person has finished a change, with {x, y, width, height}, or null for the whole photo.
 */
export function createCrop({ stage, frame, reset, onChange }) {
  let box = WHOLE;
  let settle;

  function show(next) {
    box = next;
    // Set through CSSOM, which a Content-Security-Policy without unsafe-inline allows.
    frame.style.setProperty("left", percentExact(box.x));
    frame.style.setProperty("top", percentExact(box.y));
    frame.style.setProperty("width", percentExact(box.width));
    frame.style.setProperty("height", percentExact(box.height));
    stage.toggleAttribute("data-whole", isWhole(box));
    reset.disabled = isWhole(box);
    frame.setAttribute("aria-label", isWhole(box)
      ? "Whole photo"
      : `Part of the photo: from ${percent(box.x)} left and ${percent(box.y)} top, ${percent(box.width)} wide, ${percent(box.height)} high`);
  }

  function commit(delay = 0) {
    clearTimeout(settle);
    settle = setTimeout(() => onChange(value()), delay);
  }

  function value() {
    if (isWhole(box)) return null;
    const round = (number) => Math.round(number * 1e4) / 1e4;
    const [x, y] = [round(box.x), round(box.y)];
    return { x, y, width: round(Math.min(box.width, 1 - x)), height: round(Math.min(box.height, 1 - y)) };
  }

  function pointOf(event) {
    const area = stage.getBoundingClientRect();
    return { x: clamp((event.clientX - area.left) / area.width, 0, 1), y: clamp((event.clientY - area.top) / area.height, 0, 1) };
  }

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault(); // no native image drag, no text selection
    stage.toggleAttribute("data-pointer", true); // the focus ring is for keys; here the hand is on the picture
    frame.focus({ preventScroll: true });
    stage.setPointerCapture(event.pointerId);
    const before = box;
    const start = pointOf(event);
    const edge = event.target.dataset.edge;
    const isMove = !edge && event.target === frame && !isWhole(before);
    const anchor = edge && !isWhole(before) ? anchorOf(before, edge) : start;

    const onMove = (move) => {
      const now = pointOf(move);
      if (isMove) show(moved(before, now.x - start.x, now.y - start.y));
      else show(between(anchor, now));
      stage.toggleAttribute("data-drawing", true);
    };
    const onEnd = (end) => {
      stage.removeEventListener("pointermove", onMove);
      stage.removeEventListener("pointerup", onEnd);
      stage.removeEventListener("pointercancel", onEnd);
      stage.removeAttribute("data-drawing");
      const isSlip = box.width < LEAST || box.height < LEAST;
      if (end.type === "pointercancel" || isSlip) show(before);
      else if (box !== before) commit();
    };
    stage.addEventListener("pointermove", onMove);
    stage.addEventListener("pointerup", onEnd);
    stage.addEventListener("pointercancel", onEnd);
  });

  frame.addEventListener("blur", () => stage.removeAttribute("data-pointer"));
  frame.addEventListener("keydown", (event) => {
    stage.removeAttribute("data-pointer");
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape" && !isWhole(box)) { show(WHOLE); commit(); return event.preventDefault(); }
    if (!arrows[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const [dx, dy] = arrows[event.key].map((direction) => direction * STEP);
    // The whole photo can't be moved, so the first arrow proposes its middle.
    if (isWhole(box)) show({ x: 0.2, y: 0.2, width: 0.6, height: 0.6 });
    else if (event.shiftKey) show({ ...box, width: clamp(box.width + dx, LEAST, 1 - box.x), height: clamp(box.height + dy, LEAST, 1 - box.y) });
    else show(moved(box, dx, dy));
    commit(KEYS_SETTLE_MS);
  });

  reset.addEventListener("click", () => {
    frame.focus({ preventScroll: true }); // the button is about to be disabled, which would lose the focus
    show(WHOLE);
    commit();
  });

  return {
    /** Shows a crop without reporting it; null is the whole photo. */
    set: (crop) => { clearTimeout(settle); show(crop ?? WHOLE); },
  };
}

const percentExact = (value) => `${(value * 100).toFixed(3)}%`;
