// The topics that the page subscribes to; `read` rejects every message that is not valid.
import * as v from "valibot";
import * as d from "./documents";
import * as h from "./house-documents";
import { ID } from "./reading";

/** A message: the topic's family, its node or task, and the document; null if the retained document was cleared. */
export type Said =
  | { kind: "planner"; document: d.PlannerState | null }
  | { kind: "state"; id: string; document: d.NodeState | null }
  | { kind: "profile"; id: string; document: d.NodeProfile | null }
  | { kind: "reported"; id: string; document: d.Reported | null }
  | { kind: "load"; id: string; document: d.NodeLoad | null }
  | { kind: "task"; id: string; document: d.TaskSpec | null }
  | { kind: "plan"; id: string; document: d.Plan | null }
  | { kind: "route"; id: string; document: d.RouteDoc | null }
  | { kind: "response"; id: string; document: d.Answer | d.Piece | null }
  | { kind: "event"; document: d.Event | null }
  | { kind: "bind"; id: string; document: h.Binding | null }
  | { kind: "report"; id: string; document: h.BindingReport | null }
  | { kind: "bridge"; document: h.BridgeState | null }
  | { kind: "history"; document: h.HistoryState | null }
  | { kind: "entry"; id: string; document: h.Entry | null }
  | { kind: "kept"; id: string; document: h.Kept | null }
  | { kind: "done"; document: h.Done | null }
  | { kind: "order"; id: string; document: d.ControlResponse | null };

type Family = {
  pattern: RegExp;
  /** `{asker}` is this page's own name */
  filter: string;
  kind: Said["kind"];
  schema: v.GenericSchema;
  qos: 0 | 1;
  /** whether a login may do without it: a refusal is no problem to tell */
  optional?: true;
};

/** All topics to which the page subscribes. */
export const FAMILIES: readonly Family[] = [
  { filter: "planner/state", pattern: /^planner\/state$/, kind: "planner", schema: d.PlannerState, qos: 1 },
  { filter: "event", pattern: /^event$/, kind: "event", schema: d.Event, qos: 1 },
  { filter: "task/+", pattern: /^task\/([^/]+)$/, kind: "task", schema: d.TaskSpec, qos: 1 },
  { filter: "route/+", pattern: /^route\/([^/]+)$/, kind: "route", schema: d.RouteDoc, qos: 1 },
  { filter: "plan/+", pattern: /^plan\/([^/]+)$/, kind: "plan", schema: d.Plan, qos: 1 },
  { filter: "node/+/profile", pattern: /^node\/([^/]+)\/profile$/, kind: "profile", schema: d.NodeProfile, qos: 1 },
  { filter: "node/+/reported", pattern: /^node\/([^/]+)\/reported$/, kind: "reported", schema: d.Reported, qos: 1 },
  { filter: "node/+/state", pattern: /^node\/([^/]+)\/state$/, kind: "state", schema: d.NodeState, qos: 1 },
  { filter: "node/+/load", pattern: /^node\/([^/]+)\/load$/, kind: "load", schema: d.NodeLoad, qos: 0 },
  {
    filter: "response/+",
    pattern: /^response\/([^/]+)$/,
    kind: "response",
    schema: v.union([d.Answer, d.Piece]),
    qos: 1,
  },
  { filter: "bind/+", pattern: /^bind\/([^/]+)$/, kind: "bind", schema: h.Binding, qos: 1, optional: true },
  {
    filter: "bridge/binding/+",
    pattern: /^bridge\/binding\/([^/]+)$/,
    kind: "report",
    schema: h.BindingReport,
    qos: 1,
    optional: true,
  },
  { filter: "bridge/state", pattern: /^bridge\/state$/, kind: "bridge", schema: h.BridgeState, qos: 1, optional: true },
  {
    filter: "history/state",
    pattern: /^history\/state$/,
    kind: "history",
    schema: h.HistoryState,
    qos: 1,
    optional: true,
  },
  {
    filter: "history/new/+",
    pattern: /^history\/new\/([^/]+)$/,
    kind: "entry",
    schema: h.Entry,
    qos: 1,
    optional: true,
  },
  {
    filter: "history/kept/{asker}/+",
    pattern: /^history\/kept\/[^/]+\/([^/]+)$/,
    kind: "kept",
    schema: h.Kept,
    qos: 1,
    optional: true,
  },
  {
    filter: "history/done/{asker}",
    pattern: /^history\/done\/[^/]+$/,
    kind: "done",
    schema: h.Done,
    qos: 1,
    optional: true,
  },
  {
    filter: "control/+/response",
    pattern: /^control\/([^/]+)\/response$/,
    kind: "order",
    schema: d.ControlResponse,
    qos: 1,
    optional: true,
  },
];

/** Pictures of kept answers: JPEG files, not documents. */
export const PICTURES = { filter: "history/picture/{asker}/+/+", pattern: /^history\/picture\/[^/]+\/[^/]+\/(\d+)$/ };

/** Larger messages are not parsed: an answer with images is only useful to its caller. */
const LARGEST = 1_000_000;

/** Parses one message; throws an Error with a short reason if it is invalid. */
export function read(topic: string, payload: Uint8Array): Said {
  const family = FAMILIES.find(({ pattern }) => pattern.test(topic));
  if (!family) throw new Error("not a topic of ours");
  const name = family.pattern.exec(topic)?.[1];
  if (name !== undefined && !ID.test(name)) throw new Error("its name is not an id");
  if (payload.length > LARGEST) throw new Error(`larger than ${LARGEST / 1e6} MB`);
  const document = payload.length === 0 ? null : v.parse(family.schema, JSON.parse(new TextDecoder().decode(payload)));
  return { kind: family.kind, id: name, document } as Said; // the table above pairs kinds with their schemas
}
