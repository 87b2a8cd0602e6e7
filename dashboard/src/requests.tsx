// Requests: rate, latency, and the newest ones with their answers, as far as these are on the shared topic.
import { useState } from "preact/hooks";
import { Chart } from "./chart";
import type { Site } from "./site";
import type { Request, Second } from "./traffic";
import { Steps, spans, worked } from "./steps";
import { t } from "./texts";
import { clock, inWords, ms, shown, todo } from "./words";

const SHOWN = 8;
const MINUTE = 60;

export function Requests({ site }: { site: Site }) {
  const [open, setOpen] = useState<number | null>(null);
  const seconds = site.traffic.seconds;
  const times = seconds.map((second) => second.at);
  const latest = site.traffic.requests.slice(-SHOWN).reverse();
  return (
    <section class="panel" aria-labelledby="requests-title">
      <h2 id="requests-title">{t.requests.title}</h2>
      <p class="summary">{summary(seconds)}</p>
      <div class="charts">
        <figure>
          <figcaption>{t.requests.eachSecond}</figcaption>
          <Chart
            times={times}
            unit=""
            height={130}
            lines={[
              { label: t.requests.answered, colour: "--accent", values: seconds.map((s) => s.finished), fill: true },
            ]}
          />
        </figure>
        <figure>
          <figcaption>
            {t.requests.latency} <span class="key median">● {t.requests.median}</span>{" "}
            <span class="key slowest">● {t.requests.slowest}</span>
          </figcaption>
          <Chart
            times={times}
            unit="ms"
            height={130}
            lines={[
              { label: t.requests.median, colour: "--accent", values: seconds.map((s) => quantile(s.latencies, 0.5)) },
              { label: t.requests.slowest, colour: "--warm", values: seconds.map((s) => quantile(s.latencies, 1)) },
            ]}
          />
        </figure>
      </div>
      {latest.length === 0 && <p class="quiet">{t.requests.none}</p>}
      <ol class="requests">
        {latest.map((request) => (
          <li key={request.key}>
            <button
              class="plain request"
              aria-expanded={open === request.key}
              onClick={() => setOpen(open === request.key ? null : request.key)}
            >
              <time>{clock(request.at)}</time>
              <b>{request.task}</b>
              <span class={request.answer.status}>{said(request)}</span>
              <span class="number">{took(request, site)}</span>
            </button>
            {open === request.key && <Opened request={request} site={site} />}
          </li>
        ))}
      </ol>
    </section>
  );
}

/** All that is known of a request: why it failed, or its answer, and the time of each step. */
function Opened({ request: { task, answer, sampled }, site }: { request: Request; site: Site }) {
  const { error } = answer;
  return (
    <div class="opened">
      {answer.status === "error" && (
        <p class="error">
          {error ? inWords(error) : t.requests.noReason} {error?.step && t.requests.where(error.step, error.node ?? "")}{" "}
          {error && todo(error)}
        </p>
      )}
      {answer.status === "ok" && <p class="whole">{sampled ? t.requests.privateWhy : shown(answer.answer, 2_000)}</p>}
      <Steps answer={answer} route={site.tasks.get(task)?.route} />
    </div>
  );
}

function took({ task, answer, sampled }: Request, site: Site): string {
  if (answer.status === "error") return t.requests.failed;
  return sampled ? t.requests.work(ms(worked(spans(answer, site.tasks.get(task)?.route)))) : ms(answer.latency_ms);
}

function said({ answer, sampled }: Request): string {
  if (sampled) return t.requests.private;
  if (answer.status === "ok") return shown(answer.answer, 120);
  return `✕ ${answer.error ? inWords(answer.error) : t.requests.noReason}`;
}

function summary(seconds: readonly Second[]): string {
  const last = seconds.slice(-MINUTE);
  const latencies = last.flatMap((second) => second.latencies);
  const answered = last.reduce((sum, second) => sum + second.finished, 0);
  const failed = last.reduce((sum, second) => sum + second.failed, 0);
  const pace = latencies.length
    ? t.requests.pace(ms(quantile(latencies, 0.5) ?? 0), ms(quantile(latencies, 1) ?? 0))
    : "";
  return t.requests.summary(answered, failed) + pace;
}

/** The quantile `share` (0 to 1) of values; null if there are no values. */
export function quantile(values: readonly number[], share: number): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
}
