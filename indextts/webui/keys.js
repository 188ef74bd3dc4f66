// Control and Enter (on a Mac: Command and Enter) press the button of class `speak` that is on the screen.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const button = [...document.querySelectorAll("button.speak")].find((found) => found.offsetParent !== null);
  if (!button || button.disabled) return;
  event.preventDefault();
  button.click();
});

window.indexttsPage = {
  // While an example is on its way into the form, it cannot be spoken yet.
  filling(busy) {
    document.querySelector("#speak").disabled = busy;
  },

  // Called when everything stands on the page: what changes in these places is read out by screen readers.
  opened() {
    for (const place of document.querySelectorAll(".announced")) place.setAttribute("aria-live", "polite");
  },
};
