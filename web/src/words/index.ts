// In which language the page speaks: as chosen, else as the browser is set.

import { createContext } from "preact";
import { useContext } from "preact/hooks";
import { en, type Words } from "./en";
import { zh } from "./zh";

export const LANGUAGES = { en: "English", zh: "中文" } as const;
export type Language = keyof typeof LANGUAGES;

const KEY = "agentic-ray-language";
const words: Record<Language, Words> = { en, zh };

export function firstLanguage(): Language {
  const chosen = localStorage.getItem(KEY);
  if (chosen === "en" || chosen === "zh") return chosen;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export const keepLanguage = (language: Language): void => localStorage.setItem(KEY, language);
export const wordsOf = (language: Language): Words => words[language];

export const WordsContext = createContext<Words>(en);
export const useWords = (): Words => useContext(WordsContext);
