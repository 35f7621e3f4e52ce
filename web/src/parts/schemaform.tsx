// A form made of a JSON schema. What it has no field for is given as JSON.

import type { Schema } from "../data/types";
import { useWords } from "../words";

type Values = Record<string, unknown>;

/** The schema that a `$ref` means, and of `T or null` that of T. */
export function resolved(schema: Schema, root: Schema): Schema {
  let found = schema;
  for (let steps = 0; steps < 8; steps++) {
    if (found.$ref !== undefined) {
      const named = root.$defs?.[found.$ref.replace("#/$defs/", "")];
      if (named === undefined) return found;
      found = { ...named, ...withoutRef(found) };
      continue;
    }
    const others = found.anyOf?.filter((one) => one.type !== "null");
    if (others?.length !== 1) return found;
    const { anyOf, ...rest } = found;
    void anyOf;
    found = { ...others[0], ...rest };
  }
  return found;
}

function withoutRef(schema: Schema): Schema {
  const { $ref, ...rest } = schema;
  void $ref;
  return rest;
}

/** Whether the schema's values are objects of named fields, so that there is a form of it. */
export const hasForm = (schema: Schema | null): schema is Schema =>
  schema !== null && Object.keys(resolved(schema, schema).properties ?? {}).length > 0;

/** What the form shows at first: the defaults. */
export function defaults(schema: Schema): Values {
  const fields = Object.entries(resolved(schema, schema).properties ?? {});
  return Object.fromEntries(fields.filter(([, one]) => one.default !== undefined).map(([name, one]) => [name, one.default]));
}

export function SchemaForm(props: { schema: Schema; values: Values; onChange: (values: Values) => void }) {
  const { schema, values } = props;
  const whole = resolved(schema, schema);
  return (
    <div class="form">
      {Object.entries(whole.properties ?? {}).map(([name, one]) => (
        <Field
          key={name}
          name={name}
          schema={resolved(one, schema)}
          optional={!(whole.required ?? []).includes(name)}
          value={values[name]}
          onChange={(value) => {
            const { [name]: old, ...rest } = values;
            void old;
            props.onChange(value === undefined ? rest : { ...values, [name]: value });
          }}
        />
      ))}
    </div>
  );
}

interface FieldProps {
  name: string;
  schema: Schema;
  optional: boolean;
  value: unknown;
  onChange: (value: unknown) => void;
}

function Field(props: FieldProps) {
  const words = useWords();
  const { name, schema, optional } = props;
  const id = `field-${name}`;
  const choices = schema.const !== undefined ? [schema.const] : schema.enum;
  const isJson = choices === undefined && !["string", "number", "integer", "boolean"].includes(String(schema.type));
  const notes = [schema.description, optional ? undefined : words.submit.required, isJson ? words.submit.item : undefined];
  return (
    <div class="field">
      <label for={id} class="name">
        <code>{name}</code>
      </label>
      <Input {...props} id={id} choices={choices} isJson={isJson} />
      <span class="hint" id={`${id}-hint`}>
        {notes.filter(Boolean).join(" · ")}
      </span>
    </div>
  );
}

function Input(props: FieldProps & { id: string; choices: unknown[] | undefined; isJson: boolean }) {
  const words = useWords();
  const { id, schema, value, optional, onChange } = props;
  const common = { id, "aria-describedby": `${id}-hint`, required: !optional };
  if (props.choices !== undefined) {
    const shown = value === undefined ? "" : JSON.stringify(value);
    return (
      <select {...common} value={shown} onChange={(event) => onChange(given(event.currentTarget.value))}>
        {(optional || value === undefined) && <option value="">{words.submit.unset}</option>}
        {props.choices.map((choice) => (
          <option key={String(choice)} value={JSON.stringify(choice)} selected={JSON.stringify(choice) === shown}>
            {String(choice)}
          </option>
        ))}
      </select>
    );
  }
  if (schema.type === "boolean") {
    return <input {...common} required={false} type="checkbox" checked={value === true} onChange={(event) => onChange(event.currentTarget.checked)} />;
  }
  if (schema.type === "integer" || schema.type === "number") {
    return (
      <input
        {...common}
        type="number"
        step={schema.type === "integer" ? 1 : "any"}
        min={schema.minimum}
        max={schema.maximum}
        value={value instanceof Typed ? value.text : value === undefined || value === null ? "" : String(value)}
        onInput={(event) => {
          const text = event.currentTarget.value;
          const exact = /[.eE]/.test(text) || Number.isSafeInteger(Number(text));
          onChange(text === "" ? undefined : exact ? Number(text) : new Typed(text));
        }}
      />
    );
  }
  if (schema.type === "string") {
    return (
      <input
        {...common}
        type="text"
        minLength={schema.minLength}
        maxLength={schema.maxLength}
        value={value === undefined || value === null ? "" : String(value)}
        onInput={(event) => onChange(event.currentTarget.value === "" && optional ? undefined : event.currentTarget.value)}
      />
    );
  }
  return (
    <textarea
      {...common}
      rows={3}
      spellcheck={false}
      class="code"
      // What is being typed is not JSON yet: kept as text until it is.
      value={value instanceof Typed ? value.text : value === undefined ? "" : JSON.stringify(value)}
      onInput={(event) => {
        const text = event.currentTarget.value;
        onChange(text.trim() === "" ? undefined : new Typed(text));
      }}
    />
  );
}

const given = (text: string): unknown => (text === "" ? undefined : (JSON.parse(text) as unknown));

/** JSON as it was typed into a field. */
export class Typed {
  constructor(readonly text: string) {}
}

/** The values of a form as JSON text.
 * @throws SyntaxError for a field that is not JSON. */
export function textOf(values: Values): string {
  const parts = Object.entries(values).map(([name, value]) => {
    if (!(value instanceof Typed)) return `${JSON.stringify(name)}: ${JSON.stringify(value)}`;
    try {
      JSON.parse(value.text);
    } catch (error) {
      throw new SyntaxError(`${name}: ${(error as Error).message}`);
    }
    return `${JSON.stringify(name)}: ${value.text.trim()}`; // sent as typed: no digit is lost
  });
  return `{${parts.join(", ")}}`;
}
