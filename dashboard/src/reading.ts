// What every document is read with: bounded texts and tables, closed lists that may grow, types that follow docs/schema.
import * as v from "valibot";

/** Longest text from the bus, characters. Longer ones are truncated instead of rejected, as they are only displayed. */
const LONGEST = 2_000;
const MOST = 2_000;
export const ID = /^[a-z0-9][a-z0-9-]{0,63}$/;

export const text = v.pipe(
  v.string(),
  v.transform((s) => (s.length > LONGEST ? `${s.slice(0, LONGEST)}…` : s)),
);
export const id = v.pipe(v.string(), v.regex(ID));
export const number = v.pipe(v.number(), v.finite());
export const amount = v.pipe(number, v.minValue(0));
export const maybe = <S extends v.GenericSchema>(schema: S) => v.nullish(schema);
export const list = <S extends v.GenericSchema>(schema: S) => v.pipe(v.array(schema), v.maxLength(MOST));
export const table = <S extends v.GenericSchema>(schema: S) =>
  v.pipe(
    v.record(v.string(), schema),
    v.check((found) => Object.keys(found).length <= MOST && Object.keys(found).every((key) => ID.test(key))),
  );

/**
 * A value of a closed list U. All values of the schema must be listed (otherwise tsc reports `never`). Any other value, from
 * a newer release, becomes "unknown".
 */
export const listed =
  <U extends string>() =>
  <const T extends readonly U[]>(known: [Exclude<U, T[number] | "unknown">] extends [never] ? T : never) =>
    v.fallback(v.picklist([...(known as readonly U[]), "unknown"] as (U | "unknown")[]), "unknown");

export type Known<U> = U | "unknown";

/** The part of a document D that the page reads: some fields unchanged, and some with defaults if they are absent. */
export type Of<D, As extends keyof D, Filled extends keyof D = never> = Pick<D, As> & {
  [Field in Filled]-?: Exclude<D[Field], undefined>;
};
/**
 * Types a valibot schema as a reader of D that returns T. tsc reports `never` unless the reader accepts every D that the JSON
 * Schema allows, names no field that D lacks, and returns T.
 */
export const reader =
  <D, T>() =>
  <S extends v.GenericSchema<any, T>>(
    schema: D extends v.InferInput<S> ? (keyof v.InferInput<S> extends keyof D ? S : never) : never,
  ): v.GenericSchema<unknown, T> =>
    schema as unknown as v.GenericSchema<unknown, T>;
