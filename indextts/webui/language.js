// The language that was chosen: for the next visit, for the server's messages, and for the direction of writing.
// Gradio's own texts follow the browser's language; they are told the chosen one when the page opens.
{
  const COOKIE = "indextts_language";
  const chosen = document.cookie.match(new RegExp(`${COOKIE}=(\\w+)`))?.[1];
  const show = (language) => {
    document.documentElement.lang = language;
    document.documentElement.dir = language === "ar" ? "rtl" : "ltr";
  };
  if (chosen) {
    Object.defineProperty(navigator, "language", { get: () => (chosen === "zh" ? "zh-CN" : chosen) });
    show(chosen);
  }
  window.indexttsLanguage = (language) => {
    document.cookie = `${COOKIE}=${language};path=/;max-age=31536000;samesite=lax`;
    show(language);
  };
}
