// The page's one connection to the broker: MQTT 3.1.1 over a websocket, because every broker we run on speaks that.
import mqtt, { type MqttClient } from "mqtt";
import { FAMILIES, read } from "./documents";
import { RollCall } from "./rollcall";
import type { Site } from "./site";

export type Login = { username: string; password: string };
export type Config = { url: string; root: string; username?: string; password?: string };
export type Phase = "connecting" | "online" | "offline" | "refused";

/** After a new connection: what was not said again by then is forgotten. Agents come back within a few seconds. */
const GRACE_MS = 10_000;
const RETRY_MS = 1_000;
/** How often the page looks whether something is missing in what it was told. */
const LOOK_MS = 1_000;
const CONNECT_MS = 5_000;
const KEEPALIVE_S = 10;
/** CONNACK codes of MQTT 3.1.1 that mean: not with this login. */
const REFUSED = new Set([4, 5]);

export class Connection {
  phase: Phase = "connecting";
  since = Date.now();
  /** why it is not online, in plain words */
  reason = "";
  /** filters that the login may not read */
  denied: string[] = [];
  /** whether it looks as if a login could help: some brokers close the socket without saying why */
  mayNeedLogin = false;
  /** when the picture last was what the broker said */
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

  /** Connects, and from then on again and again by itself, until the broker refuses the login. */
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
      timerVariant: "native", // the other kind makes a worker out of a text, which the page's policy forbids
    });
    this.client = client;
    client.on("connect", () => this.online(client));
    client.on("message", (topic, payload) => this.message(topic, payload));
    client.on("error", (error) => this.failed(client, error));
    client.on("close", () => this.closed(client));
  }

  /** Tries at once, as when a phone wakes up. */
  wake(): void {
    if (this.phase === "offline") this.client?.reconnect();
  }

  /** Publishes a plain request; resolves when the broker has it. */
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
      // an error names the first filter that was refused; what was granted is granted all the same
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

  /** Asks every owner of retained documents to publish them again; a login that may not ask goes without. */
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
