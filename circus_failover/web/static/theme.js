// Light or dark, before the first paint: a classic script in the head, so that no page flashes in the other one.
// <html data-theme> is always "light" or "dark"; <html data-theme-choice> is what was chosen: "auto", too.
// The event "themechange" on window tells what draws on a canvas.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  let unstored = null; // a browser may forbid localStorage: then a choice lasts as long as the page
  const chosen = () => {
    try {
      return unstored ?? localStorage.getItem("theme") ?? "auto";
    } catch {
      return "auto";
    }
  };
  const choose = (choice) => {
    unstored = null;
    try {
      if (choice === "auto") localStorage.removeItem("theme");
      else localStorage.setItem("theme", choice);
    } catch {
      unstored = choice;
    }
  };
  const apply = () => {
    const choice = chosen();
    root.dataset.themeChoice = choice;
    root.dataset.theme = choice === "auto" ? (system.matches ? "dark" : "light") : choice;
    dispatchEvent(new Event("themechange"));
  };
  system.addEventListener("change", apply);
  addEventListener("storage", (event) => event.key === "theme" && apply());
  addEventListener("settheme", (event) => {
    choose(event.detail);
    apply();
  });
  apply();
})();
