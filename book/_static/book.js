// The theme lets the keyboard reach what scrolls sideways, and looks for it when the page is
// loaded or resized. What was folded then has no width yet, so it has to look again.
for (const event of ["click", "toggle"]) {
  document.addEventListener(
    event,
    (what) => {
      if (what.target.closest?.("details, .toggle")) {
        setTimeout(() => window.dispatchEvent(new Event("resize")), 50);
      }
    },
    true,
  );
}

// Letters of a figure of at most 640 pixels can still be read when it fills a phone's screen.
document.addEventListener(
  "load",
  ({ target }) => target.classList?.toggle("narrow", target.naturalWidth <= 640),
  true,
);
