// Starts the page: reads the broker's address, connects, and renders at most ten times a second.
import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import { App } from "./app";
import { type Config, Connection } from "./connection";
import { History } from "./history";
import { Site } from "./site";
import "./styles/base.css";
import "./styles/board.css";
import "./styles/form.css";
import "./styles/lists.css";
import "./styles/many.css";
import "./styles/home.css";
import { t } from "./texts";

const DRAW_MS = 100;
/** Pause between two renderings, ms, however long they take: messages and key presses are handled meanwhile. */
const REST_MS = 30;

async function start(root: HTMLElement): Promise<void> {
  const config = (await (await fetch("config.json")).json()) as Config;
  const site = new Site();
  const history = new History();
  let waiting = false;
  let drawn = 0;
  const draw = () => {
    waiting = false;
    drawn = performance.now();
    // a new language is a new page: parts that are drawn only when their document changes are drawn again
    const { language } = t;
    render(
      <App key={language} site={site} history={history} connection={connection} config={config} changed={changed} />,
      root,
    );
  };
  const changed = () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => requestAnimationFrame(draw), Math.max(REST_MS, drawn + DRAW_MS - performance.now()));
  };
  const connection = new Connection(config, site, history, changed);
  setInterval(() => {
    site.tick(Date.now());
    changed();
  }, 1000);
  document.addEventListener("visibilitychange", () => document.hidden || connection.wake());
  draw();
  connection.start(config.username ? { username: config.username, password: config.password ?? "" } : undefined);
}

const root = document.getElementById("page")!;
start(root).catch((error: unknown) => {
  root.textContent = `The page could not start: ${error instanceof Error ? error.message : "unknown error"}. Is \`s2m3 dashboard\` still running?`;
});
