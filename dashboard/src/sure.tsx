// A button for what cannot be taken back: it asks once more.
import { useState } from "preact/hooks";
import { t } from "./texts";

export function Sure({ what, word, does }: { what: string; word: string; does: () => void }) {
  const [asks, ask] = useState(false);
  if (!asks)
    return (
      <button class="small" onClick={() => ask(true)} aria-label={`${word}: ${what}`}>
        {word}
      </button>
    );
  return (
    <span class="sure">
      {t.setup.sure(what)}{" "}
      <button
        class="small danger"
        onClick={() => {
          ask(false);
          does();
        }}
      >
        {t.setup.yes}
      </button>{" "}
      <button class="small" onClick={() => ask(false)}>
        {t.setup.no}
      </button>
    </span>
  );
}
