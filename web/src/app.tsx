// The frame of the page: who is signed in, which view is shown, language and colours.

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { onRefused, setToken, token } from "./data/api";
import { to, useAddress } from "./data/address";
import { live, useNews } from "./data/live";
import { Select } from "./parts/fields";
import { applyTheme, firstTheme, type Theme, THEMES } from "./parts/theme";
import { CompareView } from "./views/compare";
import { JobView } from "./views/job";
import { JobsView } from "./views/jobs";
import { Overview } from "./views/overview";
import { SignIn } from "./views/signin";
import { SubmitView } from "./views/submit";
import { firstLanguage, keepLanguage, LANGUAGES, type Language, useWords, wordsOf, WordsContext } from "./words";

export function App() {
  const [language, setLanguage] = useState(firstLanguage);
  const [theme, setTheme] = useState<Theme>(firstTheme);
  const [refused, setRefused] = useState(false);
  const words = wordsOf(language);

  useMemo(() => onRefused(() => setRefused(true)), []);
  useEffect(() => {
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    keepLanguage(language);
  }, [language]);
  useEffect(() => applyTheme(theme), [theme]);
  useEffect(() => {
    if (refused) return undefined;
    live.start();
    return () => live.stop();
  }, [refused]);

  const enter = (given: string): void => {
    setToken(given);
    setRefused(false);
  };
  const leave = (): void => {
    setToken(null);
    setRefused(true);
  };

  return (
    <WordsContext.Provider value={words}>
      <a class="skip" href="#main" onClick={toMain}>
        {words.skip}
      </a>
      <Header
        language={language}
        setLanguage={setLanguage}
        theme={theme}
        setTheme={setTheme}
        leave={!refused && token() !== null ? leave : null}
      />
      <Main>{refused ? <SignIn enter={enter} wrong={token() !== null} /> : <View />}</Main>
    </WordsContext.Provider>
  );
}

function toMain(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Main(props: { children: ComponentChildren }) {
  return (
    <main id="main" tabIndex={-1}>
      {props.children}
    </main>
  );
}

function View() {
  const { path } = useAddress();
  const words = useWords();
  const [name, id] = path;
  const place = path.join("/");
  const before = useRef(place);
  useEffect(() => {
    const titles: Record<string, string> = { jobs: words.nav.jobs, compare: words.nav.compare, submit: words.nav.submit };
    document.title = `${id === undefined ? (titles[name ?? ""] ?? words.nav.overview) : id.slice(0, 8)} · agentic_ray`;
    if (before.current === place) return;
    before.current = place;
    // Who cannot see the page change is told: the new view's heading is read.
    document.getElementById("main")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [place, words]);
  if (name === "jobs") return id === undefined ? <JobsView /> : <JobView key={id} id={id} />;
  if (name === "compare") return <CompareView />;
  if (name === "submit") return <SubmitView />;
  return <Overview />;
}

function Header(props: {
  language: Language;
  setLanguage: (language: Language) => void;
  theme: Theme;
  setTheme: (theme: Theme) => void;
  leave: (() => void) | null;
}) {
  const words = useWords();
  const { path } = useAddress();
  const views = ["overview", "jobs", "compare", "submit"] as const;
  const shown = path[0] ?? "overview";
  return (
    <header class="top">
      <a class="brand" href={to("overview")}>
        <Mark /> agentic_ray
      </a>
      <nav aria-label={words.nav.label}>
        {views.map((view) => (
          <a key={view} href={to(view)} aria-current={shown === view ? "page" : undefined}>
            {words.nav[view]}
          </a>
        ))}
      </nav>
      <div class="tools">
        <Line />
        <Select
          label={words.theme.label}
          quiet
          value={props.theme}
          options={THEMES.map((theme) => [theme, words.theme[theme]])}
          onChange={(value) => props.setTheme(value as Theme)}
        />
        <Select
          label={words.language}
          quiet
          value={props.language}
          options={Object.entries(LANGUAGES)}
          onChange={(value) => props.setLanguage(value as Language)}
        />
        {props.leave && (
          <button type="button" class="quiet" onClick={props.leave}>
            {words.signIn.out}
          </button>
        )}
      </div>
    </header>
  );
}

function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="7" />
      <path d="M6 8h12v4H6zM11 14h15v4H11zM8 20h9v4H8z" />
    </svg>
  );
}

function Line() {
  useNews("line");
  const words = useWords();
  const { connected } = live;
  const text = connected === null ? words.line.first : connected ? words.line.on : words.line.off;
  return (
    <span class={`line ${connected === false ? "off" : connected ? "on" : ""}`} role="status">
      <span class="dot" aria-hidden="true" />
      {text}
    </span>
  );
}
