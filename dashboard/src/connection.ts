// The page's connection to the broker: MQTT 3.1.1 over a websocket, which every supported broker speaks.
import mqtt, { type MqttClient } from "mqtt";
import { FAMILIES, PICTURES, type Said, read } from "./messages";
import type { Filter, History } from "./history";
import { RollCall } from "./rollcall";
import type { Site } from "./site";
import { t } from "./texts";

export type Login = { username: string; password: string };
export type Config = { url: string; root: string; username?: string; password?: string };
export type Phase = "connecting" | "online" | "offline" | "refused";

/** Documents that were not published again this long after a connect are dropped; agents reconnect within seconds. */
const GRACE_MS = 10_000;
const RETRY_MS = 1_000;
/** Interval at which the page checks for missing documents, ms. */
const LOOK_MS = 1_000;
const CONNECT_MS = 5_000;
const KEEPALIVE_S = 10;
/** Answers of one query of the list, and of a search. */
const PAGE = 30;
const FOUND = 24;
/** Pictures that are asked for in one message, and how long the page gathers them, ms. */
const PICTURES_AT_ONCE = 32;
const GATHER_MS = 60;
/** CONNACK return codes of MQTT 3.1.1 for a refused login. */
const REFUSED = new Set([4, 5]);

export class Connection {
  phase: Phase = "connecting";
  since = Date.now();
  /** why the page is not connected, as text */
  reason = "";
  /** topic filters that the broker denied to this login */
  denied: string[] = [];
  /** whether a login may help; some brokers refuse one by closing the socket without a CONNACK */
  mayNeedLogin = false;
  /** time of the last message from the broker; 0 if there was none */
  lastHeard = 0;
  private client?: MqttClient;
  private grace?: ReturnType<typeof setTimeout>;
  private look?: ReturnType<typeof setInterval>;
  private readonly rollCall = new RollCall();
  private everOnline = false;
  /** this page's name in the topics of the history */
  private readonly asker = `page-${random()}`;
  private asking?: ReturnType<typeof setTimeout>;

  constructor(
    private readonly config: Config,
    private readonly site: Site,
    private readonly history: History,
    private readonly changed: () => void,
  ) {}

  /** Connects, and reconnects after each loss until the broker refuses the login. */
  start(login?: Login): void {
    this.client?.end(true);
    this.set("connecting", "");
    const client = mqtt.connect(this.config.url, {
      protocolVersion: 4,
      clientId: `s2m3-page-${random()}`,
      username: login?.username || undefined,
      password: login?.password || undefined,
      clean: true,
      keepalive: KEEPALIVE_S,
      reconnectPeriod: RETRY_MS,
      connectTimeout: CONNECT_MS,
      resubscribe: false,
      queueQoSZero: false,
      timerVariant: "native", // the default starts a worker from a text, which the page's Content Security Policy forbids
    });
    this.client = client;
    client.on("connect", () => this.online(client));
    client.on("message", (topic, payload) => this.message(topic, payload));
    client.on("error", (error) => this.failed(client, error));
    client.on("close", () => this.closed(client));
  }

  /** Reconnects at once instead of after the back-off, e.g. when a phone wakes up. */
  wake(): void {
    if (this.phase === "offline") this.client?.reconnect();
  }

  /** Publishes a plain request; resolves at the PUBACK. */
  async ask(task: string, body: string): Promise<void> {
    await this.publish(`request/${task}`, body);
  }

  /** Publishes on a topic under the root; resolves at the PUBACK, which 3.1.1 gives for what it drops, too. */
  async publish(topic: string, body: string, retain = false): Promise<void> {
    if (this.phase !== "online" || !this.client) throw new Error(t.connection.notConnected);
    await this.client.publishAsync(`${this.config.root}/${topic}`, body, { qos: 1, retain });
  }

  /** Asks the bridge for the newest kept answers of a filter, or with `older` for those before the ones at hand. */
  list(filter: Filter, older = false): void {
    const { history } = this;
    history.filter = filter;
    if (!older) history.entries = [];
    const before = older ? history.entries.at(-1)?.id : undefined;
    history.listed = { transaction: random(), at: Date.now(), entries: [], adds: older };
    const since_ms = filter.hours ? Date.now() - filter.hours * 3_600_000 : undefined;
    this.want({
      transaction: history.listed.transaction,
      tasks: filter.task ? [filter.task] : [],
      source: filter.source,
      words: filter.words,
      since_ms,
      before,
      limit: PAGE,
    });
  }

  /** Searches the kept pictures: those that fit a text, or that are like the picture of an answer. */
  search(sought: { text: string } | { like: number }): void {
    this.history.soughtWords = "text" in sought ? sought.text : "";
    this.history.sought = { transaction: random(), at: Date.now(), entries: [], adds: false };
    this.want({ transaction: this.history.sought.transaction, limit: FOUND, ...sought });
  }

  /** Asks for the pictures that were missing in the last renderings, all in one message. */
  askForPictures(): void {
    if (this.asking !== undefined || this.phase !== "online") return;
    this.asking = setTimeout(() => {
      this.asking = undefined;
      const pictures = this.history.due(PICTURES_AT_ONCE);
      if (pictures.length > 0) this.want({ limit: 0, pictures });
    }, GATHER_MS);
  }

  private want(wanted: object): void {
    this.publish(`history/wanted/${this.asker}`, JSON.stringify(wanted)).catch(() => {}); // the next connect asks again
    this.changed();
  }

  private online(client: MqttClient): void {
    this.everOnline = true;
    this.mayNeedLogin = false;
    this.site.begin();
    this.history.begin();
    const own = (filter: string) => filter.replace("{asker}", this.asker);
    const families = [...FAMILIES, { filter: PICTURES.filter, qos: 1 as const, optional: true }];
    const wanted = Object.fromEntries(
      families.map(({ filter, qos }) => [`${this.config.root}/${own(filter)}`, { qos }]),
    );
    client.subscribe(wanted, (error, granted) => {
      if (client !== this.client) return;
      // the error names the first denied filter; the granted ones are subscribed nevertheless
      this.denied = error
        ? families
            .filter(({ optional }) => !optional)
            .map(({ filter }) => filter)
            .filter((f) => !granted?.some((g) => g.topic.endsWith(f) && g.qos < 128))
        : [];
      this.list(this.history.filter);
      this.changed();
      this.rollCall.asked(Date.now());
      this.whoIsThere(client);
    });
    clearInterval(this.look);
    this.look = setInterval(() => {
      if (this.rollCall.due(this.site.missing(), Date.now())) this.whoIsThere(client);
    }, LOOK_MS);
    clearTimeout(this.grace);
    this.grace = setTimeout(() => {
      this.site.forget();
      this.changed();
    }, GRACE_MS);
    this.set("online", "");
  }

  /** Asks all owners of retained documents to publish them again; skipped for a login without that right. */
  private whoIsThere(client: MqttClient): void {
    if (client !== this.client || this.phase !== "online") return;
    client.publish(`${this.config.root}/rollcall`, JSON.stringify({ asker: "page" }), { qos: 0 });
  }

  private message(topic: string, payload: Uint8Array): void {
    const now = Date.now();
    this.lastHeard = now;
    const picture = PICTURES.pattern.exec(topic.slice(this.config.root.length + 1))?.[1];
    try {
      if (picture !== undefined) this.history.show(Number(picture), payload);
      else this.apply(read(topic.slice(this.config.root.length + 1), payload), now);
    } catch (error) {
      this.site.refuse(topic, error instanceof Error ? error.message : "unreadable");
    }
    this.changed();
  }

  private apply(said: Said, now: number): void {
    switch (said.kind) {
      case "history":
        this.history.told(said.document ?? undefined);
        break;
      case "entry":
        if (said.document) this.history.add(said.document);
        break;
      case "kept":
        if (said.document) this.history.found(said.document);
        break;
      case "done":
        if (said.document) this.history.finished(said.document);
        break;
      default:
        this.site.apply(said, now);
    }
  }

  private failed(client: MqttClient, error: Error & { code?: number | string }): void {
    if (client !== this.client) return;
    if (typeof error.code === "number" && REFUSED.has(error.code)) {
      client.end(true);
      this.mayNeedLogin = true;
      this.set("refused", t.connection.refused);
    }
  }

  private closed(client: MqttClient): void {
    if (client !== this.client || this.phase === "refused") return;
    clearTimeout(this.grace);
    clearInterval(this.look);
    this.mayNeedLogin = !this.everOnline;
    const reason = this.everOnline ? t.connection.gone : t.connection.nobody(this.config.url);
    this.set("offline", reason);
  }

  private set(phase: Phase, reason: string): void {
    if (phase !== this.phase) this.since = Date.now();
    this.phase = phase;
    this.reason = reason;
    this.changed();
  }
}

/** A random name for a client, a query or an order. */
export function random(): string {
  return crypto.getRandomValues(new Uint32Array(2)).join("-");
}
