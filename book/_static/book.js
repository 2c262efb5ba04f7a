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
