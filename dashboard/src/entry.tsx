// One kept answer: a card in a list, and its details when it is opened.
import { memo } from "preact/compat";
import type { Connection } from "./connection";
import type { Entry } from "./house-documents";
import type { History } from "./history";
import { Picture } from "./picture";
import type { Site } from "./site";
import { Steps } from "./steps";
import { t } from "./texts";
import { inWords, ms, shown, todo, when } from "./words";

type Props = {
  entry: Entry;
  history: History;
  site: Site;
  connection: Connection;
  open: boolean;
  toggle: (id: number) => void;
  like: (entry: Entry) => void;
};

/** One answer; its picture is asked for when it is first shown. */
export function Card(props: Props) {
  const { entry, history, connection } = props;
  const url = entry.picture ? history.picture(entry) : undefined;
  if (entry.picture && !url) connection.askForPictures();
  return <Drawn {...props} url={url} age={ago(entry, Date.now())} searches={Boolean(history.state?.search)} />;
}

type DrawnProps = Props & { url: string | undefined; age: string; searches: boolean };

function drawn({ entry, site, open, toggle, like, url, age, searches }: DrawnProps) {
  const { answer } = entry;
  return (
    <li class={`entry ${answer.event_type} ${open ? "open" : ""}`} data-entry={entry.task}>
      <button class="card" aria-expanded={open} onClick={() => toggle(entry.id)}>
        <Picture entry={entry} url={url} />
        <span class="said">
          {answer.event_type === "failed" ? (
            <span class="error">✕ {answer.error ? inWords(answer.error) : t.home.failed}</span>
          ) : (
            <b>{answer.state}</b>
          )}
        </span>
        <span class="facts">
          {answer.score != null && <span>{t.home.score(answer.score)}</span>}
          {entry.fits != null && <span>{t.find.fits(entry.fits)}</span>}
          {entry.rank ? <span class="standin">{t.home.standIn}</span> : null}
          <span>{entry.task}</span>
          <span>{origin(entry)}</span>
          <time dateTime={new Date(entry.at_ms).toISOString()} title={when(entry.at_ms, Date.now())}>
            {age}
          </time>
        </span>
      </button>
      {open && <Details entry={entry} site={site} like={searches ? like : undefined} />}
    </li>
  );
}

/** Hundreds of cards are not drawn ten times a second: one that is closed changes with its picture and its age alone. */
const Drawn = memo(drawn, (a, b) => !a.open && !b.open && a.entry === b.entry && a.url === b.url && a.age === b.age);

const DAY_MS = 86_400_000;

function ago(entry: Entry, now: number): string {
  return now - entry.at_ms < DAY_MS ? t.home.seconds((now - entry.at_ms) / 1000) : when(entry.at_ms, now);
}

/** Where the question came from: the topic of the camera or button, else who asked. */
export function origin({ answer }: Entry): string {
  if (answer.topic) return answer.topic;
  if (answer.source === "question") return t.home.from.question;
  return answer.source.startsWith("binding:") ? t.home.binding(answer.source.slice(8)) : t.home.from.plain;
}

function Details({ entry, site, like }: { entry: Entry; site: Site; like?: (entry: Entry) => void }) {
  const { answer } = entry;
  const asked = Object.entries(entry.asked);
  const outputs = Object.entries(answer.outputs);
  return (
    <div class="details">
      {answer.error && (
        <p class="error">
          {inWords(answer.error)} {answer.error.step && t.requests.where(answer.error.step, answer.error.node ?? "")}{" "}
          {todo(answer.error)}
        </p>
      )}
      <h4>{t.home.what}</h4>
      {answer.question && <p>{answer.question}</p>}
      {asked.length === 0 && !answer.question && <p class="quiet">{t.home.nothingAsked}</p>}
      <dl class="outputs">
        {asked.map(([name, value]) => (
          <Row key={name} name={name} value={value} />
        ))}
      </dl>
      {Object.keys(entry.steps).length > 0 && (
        <>
          <h4>{t.home.steps}</h4>
          <Steps
            answer={{ steps: entry.steps, latency_ms: answer.latency_ms ?? 0 }}
            route={site.tasks.get(entry.task)?.route}
          />
        </>
      )}
      <dl class="outputs">
        <Row name={t.home.when} value={when(entry.at_ms, Date.now())} />
        {answer.latency_ms != null && <Row name={t.home.took} value={ms(answer.latency_ms)} />}
        {entry.model && <Row name={t.home.model} value={entry.model + (entry.rank ? `, ${t.home.standIn}` : "")} />}
        {answer.topic && <Row name={t.home.topic} value={answer.topic} />}
        {answer.source.startsWith("binding:") && (
          <Row name={t.home.asked} value={t.home.binding(answer.source.slice(8))} />
        )}
      </dl>
      {outputs.length > 0 && (
        <details>
          <summary>{t.home.everything}</summary>
          <dl class="outputs">
            {outputs.map(([name, value]) => (
              <Row key={name} name={name} value={shown(value, 1_000)} />
            ))}
          </dl>
        </details>
      )}
      {entry.picture && like && (
        <button class="small" onClick={() => like(entry)}>
          {t.find.like}
        </button>
      )}
    </div>
  );
}

function Row({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
