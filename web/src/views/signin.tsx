import { useState } from "preact/hooks";
import { useWords } from "../words";
import { Problem } from "../parts/fields";

export function SignIn(props: { enter: (token: string) => void; wrong: boolean }) {
  const words = useWords();
  const [given, setGiven] = useState("");
  const send = (event: Event): void => {
    event.preventDefault();
    if (given.trim() !== "") props.enter(given.trim());
  };
  return (
    <form class="card signin" onSubmit={send}>
      <h1>{words.signIn.title}</h1>
      <p>{words.signIn.text}</p>
      <Problem text={props.wrong ? words.signIn.wrong : null} />
      <div class="field">
        <label class="name" for="token">
          {words.signIn.token}
        </label>
        <input
          id="token"
          type="password"
          autocomplete="off"
          required
          value={given}
          onInput={(event) => setGiven(event.currentTarget.value)}
        />
        <span class="hint">{words.signIn.kept}</span>
      </div>
      <button type="submit" class="main">
        {words.signIn.enter}
      </button>
    </form>
  );
}
