// A new job: its workload's form, or JSON; with the parameters of an earlier job if one is named.

import { useEffect, useState } from "preact/hooks";
import { get, job as pathOf, post } from "../data/api";
import { change, go, jobLink, useAddress } from "../data/address";
import { useAsked } from "../data/asking";
import { isExact } from "../data/numbers";
import type { JobDetail, Schema, Workload } from "../data/types";
import { Problem, Select } from "../parts/fields";
import { defaults, hasForm, resolved, SchemaForm, textOf } from "../parts/schemaform";
import { useWords } from "../words";

export function SubmitView() {
  const words = useWords();
  const { query } = useAddress();
  const from = query.get("from") ?? "";
  const workloads = useAsked("workloads", (signal) => get<{ workloads: Workload[] }>("/view/workloads", signal));
  const earlier = useAsked(from, (signal) => (from === "" ? Promise.resolve(null) : get<JobDetail>(pathOf("/view/jobs", from), signal)));
  const known = workloads.value?.workloads ?? null;
  const old = earlier.value?.task_id === from ? earlier.value : null;
  if (known === null || (from !== "" && old === null)) {
    const problem = workloads.error ?? earlier.error;
    return problem === null ? <p class="empty">{words.loading}</p> : <Problem text={problem} />;
  }
  const name = query.get("workload") ?? old?.workload ?? known[0]?.name ?? "";
  const workload = known.find((one) => one.name === name) ?? null;
  const params = old !== null && old.workload === name ? old.params : undefined;
  return (
    <>
      <h1>{words.submit.title}</h1>
      <div class="narrow">
        {old !== null && <p class="hint">{words.submit.from(old.task_id.slice(0, 8))}</p>}
        <Select
          label={words.submit.workload}
          value={name}
          options={known.map((one) => [one.name, one.name])}
          onChange={(value) => change({ workload: value }, true)}
        />
        {workload !== null && <Form key={`${name} ${from}`} workload={workload} params={params} old={old} />}
      </div>
    </>
  );
}

function example(schema: Schema | null): string {
  if (schema === null) return "";
  const whole = resolved(schema, schema);
  if (whole.default !== undefined) return JSON.stringify(whole.default);
  if (whole.properties !== undefined) return JSON.stringify(defaults(schema), null, 2);
  return "";
}

function Form(props: { workload: Workload; params: string | undefined; old: JobDetail | null }) {
  const words = useWords();
  const { workload, params, old } = props;
  const exact = params === undefined || (isExact(params) && isObject(params));
  const formed = hasForm(workload.schema) && exact;
  const [asJson, setAsJson] = useState(!formed);
  const [values, setValues] = useState<Record<string, unknown>>(() => {
    if (!hasForm(workload.schema)) return {};
    // (What was not given had its default.)
    return { ...defaults(workload.schema), ...(params !== undefined && exact ? (JSON.parse(params) as Record<string, unknown>) : {}) };
  });
  const [text, setText] = useState(() => params ?? example(workload.schema));
  const [priority, setPriority] = useState(String(old?.priority ?? 0));
  const [timeout, setTimeout] = useState(old?.timeout_seconds == null ? "" : String(old.timeout_seconds));
  const [cache, setCache] = useState(true);
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => setProblem(null), [text, values]);

  const show = (json: boolean): void => {
    try {
      if (json) setText(pretty(textOf(values)));
      else if (isExact(text) && isObject(text)) setValues(JSON.parse(text) as Record<string, unknown>);
      else {
        setProblem(words.submit.inexact);
        return;
      }
      setAsJson(json);
    } catch (error) {
      setProblem(words.submit.invalid((error as Error).message));
    }
  };

  const send = async (event: Event): Promise<void> => {
    event.preventDefault();
    let given: string;
    try {
      given = asJson ? text : textOf(values);
      JSON.parse(given);
    } catch (error) {
      setProblem(words.submit.invalid((error as Error).message));
      return;
    }
    setBusy(true);
    // (The text as it is, and not what it is read as here: no digit is lost.)
    const options = JSON.stringify({
      workload: workload.name,
      priority: Number(priority) || 0,
      ...(timeout === "" ? {} : { timeout_seconds: Number(timeout) }),
      cache,
    });
    const body = `${options.slice(0, -1)},"params":${given}}`;
    try {
      const { task_id } = await post<{ task_id: string }>("/submit", body, { "Idempotency-Key": newKey() });
      go(jobLink(task_id));
    } catch (error) {
      setProblem((error as Error).message);
      setBusy(false);
    }
  };

  return (
    <form class="card" onSubmit={(event) => void send(event)}>
      {workload.summary !== "" && <p>{workload.summary}</p>}
      {workload.effects && <p class="notice">{words.submit.effects}</p>}
      {!hasForm(workload.schema) && <p class="hint">{words.submit.noSchema}</p>}
      {hasForm(workload.schema) && !exact && <p class="hint">{words.submit.inexact}</p>}
      {formed && (
        <div class="chips" role="group" aria-label={words.submit.how}>
          {[false, true].map((json) => (
            <button key={String(json)} type="button" class="chip" aria-pressed={asJson === json} onClick={() => asJson !== json && show(json)}>
              {json ? words.submit.json : words.submit.form}
            </button>
          ))}
        </div>
      )}
      {asJson || !hasForm(workload.schema) ? (
        <div class="field">
          <label class="name" for="params-json">
            {words.submit.params}
          </label>
          <textarea id="params-json" class="code" rows={10} required spellcheck={false} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </div>
      ) : (
        <SchemaForm schema={workload.schema} values={values} onChange={setValues} />
      )}
      <fieldset>
        <legend>{words.submit.options}</legend>
        <div class="form">
          <div class="field">
            <label class="name" for="priority">
              {words.submit.priority}
            </label>
            <input id="priority" type="number" step={1} value={priority} onInput={(event) => setPriority(event.currentTarget.value)} />
          </div>
          <div class="field">
            <label class="name" for="timeout">
              {words.submit.timeout}
            </label>
            <input id="timeout" type="number" min={0} step="any" value={timeout} onInput={(event) => setTimeout(event.currentTarget.value)} />
          </div>
        </div>
        <label class="check">
          <input type="checkbox" checked={cache} onChange={(event) => setCache(event.currentTarget.checked)} /> {words.submit.cache}
        </label>
      </fieldset>
      <Problem text={problem} />
      <button type="submit" class="main" disabled={busy}>
        {words.submit.send}
      </button>
    </form>
  );
}

function isObject(text: string): boolean {
  const value: unknown = JSON.parse(text);
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** JSON with line ends, if that loses no digit. */
const pretty = (text: string): string => (isExact(text) ? JSON.stringify(JSON.parse(text), null, 2) : text);

function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `page-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

