// Shortcuts for the whole page, and the help that lists them. Keys of a single character can be switched off there,
// because speech input would trigger them by accident.

/** Whether keys typed at an element are meant for it. */
function takesText(element) {
  return element.closest("textarea, select, dialog[open]") !== null || (element.tagName === "INPUT" && !["range", "radio", "checkbox"].includes(element.type));
}

/** Whether arrows pressed at an element move something of its own: a value, a list, the focused token. */
function takesArrows(element) {
  return element.closest("textarea, select, dialog[open], input, ol, ul, .text") !== null;
}

/** Wires the shortcuts. `actions` maps a key to what it does. */
function makeKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key.startsWith("Arrow") ? takesArrows(event.target) : takesText(event.target)) return;
    if (event.key.length === 1 && !at("shortcuts").checked) return;
    const action = actions.get(event.key);
    if (action === undefined) return;
    event.preventDefault();
    action();
  });
  at("help-open").addEventListener("click", actions.get("?"));
}

/** Runs the last of a burst of calls, once they have stopped for `wait` milliseconds. */
function settled(wait, action) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  };
}
