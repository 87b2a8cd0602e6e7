// The page's connection to the broker: MQTT 3.1.1 over a websocket, which every supported broker speaks.
import mqtt, { type MqttClient } from "mqtt";
import { FAMILIES, read } from "./documents";
import { RollCall } from "./rollcall";
import type { Site } from "./site";

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

  constructor(
    private readonly config: Config,
    private readonly site: Site,
    private readonly changed: () => void,
  ) {}

  /** Connects, and reconnects after each loss until the broker refuses the login. */
  start(login?: Login): void {
    this.client?.end(true);
    this.set("connecting", "");
    const client = mqtt.connect(this.config.url, {
      protocolVersion: 4,
      clientId: `s2m3-page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`,
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
    if (this.phase !== "online" || !this.client) throw new Error("not connected to the broker");
    await this.client.publishAsync(`${this.config.root}/request/${task}`, body, { qos: 1 });
  }

  private online(client: MqttClient): void {
    this.everOnline = true;
    this.mayNeedLogin = false;
    this.site.begin();
    const wanted = Object.fromEntries(FAMILIES.map(({ filter, qos }) => [`${this.config.root}/${filter}`, { qos }]));
    client.subscribe(wanted, (error, granted) => {
      if (client !== this.client) return;
      // the error names the first denied filter; the granted ones are subscribed nevertheless
      this.denied = error
        ? FAMILIES.map(({ filter }) => filter).filter((f) => !granted?.some((g) => g.topic.endsWith(f) && g.qos < 128))
        : [];
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
    try {
      this.site.apply(read(topic.slice(this.config.root.length + 1), payload), now);
    } catch (error) {
      this.site.refuse(topic, error instanceof Error ? error.message : "unreadable");
    }
    this.changed();
  }

  private failed(client: MqttClient, error: Error & { code?: number | string }): void {
    if (client !== this.client) return;
    if (typeof error.code === "number" && REFUSED.has(error.code)) {
      client.end(true);
      this.mayNeedLogin = true;
      this.set("refused", "The broker refused this login.");
    }
  }

  private closed(client: MqttClient): void {
    if (client !== this.client || this.phase === "refused") return;
    clearTimeout(this.grace);
    clearInterval(this.look);
    this.mayNeedLogin = !this.everOnline;
    const reason = this.everOnline
      ? "The broker is gone."
      : `No answer from ${this.config.url}. Is its websocket listener on, and the login right?`;
    this.set("offline", reason);
  }

  private set(phase: Phase, reason: string): void {
    if (phase !== this.phase) this.since = Date.now();
    this.phase = phase;
    this.reason = reason;
    this.changed();
  }
}
