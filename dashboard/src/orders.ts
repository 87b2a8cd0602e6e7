// What the page changes: retained documents that it publishes, and orders. Each says whether it came through.
import type { Connection } from "./connection";
import { random } from "./connection";
import type { ControlResponse } from "./documents";
import type { Site } from "./site";
import { t } from "./texts";
import { inWords } from "./words";

/** Longest time until the page hears its own document, or the response to an order, ms. */
const PATIENCE_MS = 4_000;
const LOOK_MS = 50;

export const act = {
  /**
   * Publishes a retained document, or with "" clears it. A broker takes what a login may not publish without a word
   * (MQTT 3.1.1), so the page waits until the site has it. Returns "" or why it is not done.
   */
  async retain(connection: Connection, topic: string, body: string, has: () => boolean): Promise<string> {
    try {
      await connection.publish(topic, body, true);
    } catch (error) {
      return error instanceof Error ? error.message : t.ask.notSent;
    }
    return (await until(has)) ? "" : t.setup.denied;
  },

  /** Gives an order; returns its response, or why there is none. */
  async order(
    connection: Connection,
    site: Site,
    verb: string,
    more: object = {},
    patience_ms = PATIENCE_MS,
  ): Promise<ControlResponse | string> {
    try {
      const response = await act.ask(connection, site, verb, more, patience_ms);
      if (!response) return t.setup.noResponse;
      return response.error ? inWords(response.error) : response;
    } catch (error) {
      return error instanceof Error ? error.message : t.ask.notSent;
    }
  },

  /** Gives an order; returns its response, if one comes in time. */
  async ask(
    connection: Connection,
    site: Site,
    verb: string,
    more: object,
    patience_ms: number,
  ): Promise<ControlResponse | undefined> {
    const transaction = random();
    await connection.publish(`control/${verb}`, JSON.stringify({ ...more, transaction }));
    await until(() => site.orders.has(transaction), patience_ms);
    return site.orders.get(transaction);
  },
};

/** Waits until something is the case; false if it is not in time. */
export async function until(is: () => boolean, patience_ms = PATIENCE_MS): Promise<boolean> {
  const end = performance.now() + patience_ms;
  while (!is()) {
    if (performance.now() > end) return false;
    await new Promise((done) => setTimeout(done, LOOK_MS));
  }
  return true;
}
