// Questions to the service: with the token, in bounded time, and what an answer means.

const KEY = "seqstream-console-token";
const TIMEOUT_MS = 6000;

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  clear: () => sessionStorage.removeItem(KEY),
};

/** No answer, or one that is an error: `kind` is away, refused, nothing or busy. */
export class Failure extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, {
      headers: {Authorization: `Bearer ${token.get()}`},
      credentials: "omit",
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    throw new Failure("away", error.name === "TimeoutError"
      ? `no answer within ${TIMEOUT_MS / 1000} s` : "the service does not answer");
  }
  if (answer.ok) return answer.json().catch(() => { throw new Failure("away", "half an answer"); });
  const said = await answer.json().catch(() => ({}));
  throw new Failure(kindOf(answer.status, said.code), messageOf(answer.status, said));
}

function kindOf(status, code) {
  if (status === 401 || code === "FORBIDDEN") return "refused";
  if (status === 404 || status === 403 || status === 400) return "nothing";
  if (status === 429) return "busy";
  return "away";
}

function messageOf(status, said) {
  if (status === 401) return "The token is not valid, or no longer.";
  if (said.code === "FORBIDDEN") return "This token has not the scope “admin”.";
  return said.error ?? `The service answered ${status}.`;
}
