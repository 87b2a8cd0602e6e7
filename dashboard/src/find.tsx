// Finds kept pictures that fit words, or that are like another one. The bridge compares; the page only asks.
import { useState } from "preact/hooks";
import type { Connection } from "./connection";
import type { Entry } from "./house-documents";
import { Card } from "./entry";
import type { History } from "./history";
import type { Site } from "./site";
import { t } from "./texts";
import { inWords } from "./words";

type Props = {
  site: Site;
  history: History;
  connection: Connection;
  like: (entry: Entry) => void;
  /** makes a rule of what was searched for; undefined where the site cannot */
  trigger: (words: string) => void;
};

const PATIENCE_MS = 8_000;

export function Find({ site, history, connection, like, trigger }: Props) {
  const [words, setWords] = useState(history.soughtWords);
  const [open, setOpen] = useState<number | null>(null);
  const { sought, state } = history;
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (words.trim()) connection.search({ text: words.trim() });
  };
  return (
    <section class="panel find" aria-labelledby="find-title">
      <h2 id="find-title">{t.find.title}</h2>
      {state?.search ? (
        <form class="line" onSubmit={submit} role="search">
          <label>
            {t.find.words}
            <input
              type="search"
              name="words"
              value={words}
              placeholder={t.find.hint}
              maxLength={300}
              onInput={(e) => setWords(e.currentTarget.value)}
            />
          </label>
          <button class="primary" disabled={connection.phase !== "online"}>
            {t.find.find}
          </button>
          <p class="quiet">{t.find.by(state.search)}</p>
        </form>
      ) : (
        <p class="quiet">{t.find.off}</p>
      )}
      {sought && history.soughtWords === "" && <h3>{t.find.likeTitle}</h3>}
      <div role="status">
        <Progress history={history} />
      </div>
      <ul class="entries" aria-label={t.find.title}>
        {sought?.done &&
          sought.entries.map((entry) => (
            <Card
              key={entry.id}
              entry={entry}
              history={history}
              site={site}
              connection={connection}
              open={open === entry.id}
              toggle={(id) => setOpen((now) => (now === id ? null : id))}
              like={like}
            />
          ))}
      </ul>
      {sought?.done && history.soughtWords && (
        <button class="small" onClick={() => trigger(history.soughtWords)}>
          {t.find.trigger}
        </button>
      )}
    </section>
  );
}

function Progress({ history: { sought } }: { history: History }) {
  if (!sought) return null;
  if (!sought.done) return <p>{Date.now() - sought.at > PATIENCE_MS ? t.find.noAnswer : t.find.searching}</p>;
  if (sought.done.error) return <p class="error">✕ {inWords(sought.done.error)}</p>;
  return (
    <>
      {sought.entries.length === 0 && <p class="quiet">{t.find.none}</p>}
      {(sought.done.missing ?? 0) > 0 && <p class="quiet">{t.find.missing(sought.done.missing!)}</p>}
    </>
  );
}
