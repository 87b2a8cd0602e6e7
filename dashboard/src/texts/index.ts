// The language of the page: the browser's, or the one that was chosen on this device.
import { de } from "./de";
import { type Texts, en } from "./en";

export type { Texts } from "./en";
const LANGUAGES: Record<string, Texts> = { en, de };
const KEPT = "language";

/** The texts in the chosen language. Read it when rendering: it changes. */
export let t: Texts = LANGUAGES[kept() ?? navigator.language.slice(0, 2)] ?? en;

/** Changes to the other language, and remembers it on this device. */
export function changeLanguage(): void {
  t = t === en ? de : en;
  document.documentElement.lang = t.language;
  try {
    localStorage.setItem(KEPT, t.language);
  } catch {
    // storage is switched off: the language is chosen again at the next visit
  }
}

function kept(): string | null {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null; // storage is switched off
  }
}

document.documentElement.lang = t.language;
