// Dark or light: as the system has it, until the user chooses. Gradio takes the choice from the address.
{
  const KEY = "indextts_theme";
  const apply = (theme) => {
    const address = new URL(location.href);
    address.searchParams.set("__theme", theme);
    history.replaceState(history.state, "", address);
  };
  const chosen = localStorage.getItem(KEY);
  if (chosen) apply(chosen);
  window.indexttsTheme = () => {
    const theme = document.body.classList.toggle("dark") ? "dark" : "light";
    localStorage.setItem(KEY, theme);
    apply(theme);
  };
}
