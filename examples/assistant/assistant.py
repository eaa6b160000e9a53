"""An offline assistant: it sleeps until a line comes on stdin, answers it, and remembers what it was asked to remember.

    python examples/assistant/assistant.py facts.txt [PROFILE]

"remember that …", "forget …" and "what do you remember?" keep the facts, one a line in a plain text file that is yours:
change it with any editor, at any time. Everything else is answered by the model, which is told these facts.
"""

import sys
from pathlib import Path

import padlite

FORGET, REMEMBER, CONTEXT_FULL = "forget ", "remember that ", 4  # the last is that error's exit code


def facts_in(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()] if file.exists() else []


def keep(file: Path, facts: list[str]) -> None:
    file.touch(mode=0o600)
    file.write_text("".join(f"{fact}\n" for fact in facts), "utf-8")


def answer(chat: padlite.Chat, rules: str, file: Path, line: str) -> None:
    facts, wish = facts_in(file), line.rstrip("?.! ").lower()
    if wish.startswith(REMEMBER):
        keep(file, [*facts, line[len(REMEMBER) :]])
        print("I will remember that.")
    elif wish.startswith(FORGET):
        keep(file, kept := [fact for fact in facts if wish.removeprefix(FORGET) not in fact.lower()])
        print(f"Forgotten: {len(facts) - len(kept)}.")
    elif wish == "what do you remember":
        print("\n".join(facts) or "Nothing yet.")
    else:
        chat.system = "\n".join([rules, *facts]).strip()
        for piece in chat.stream(line):
            print(piece, end="", flush=True)
        print()


def main(file: Path, profile: str | None = None) -> None:
    with padlite.open(profile) as chat:
        rules = chat.system
        for line in filter(None, map(str.strip, sys.stdin)):
            try:
                answer(chat, rules, file, line)
            except padlite.PadliteError as error:
                print(f"{error.message} (try: {error.remedy})", file=sys.stderr)
                if error.exit_code == CONTEXT_FULL:
                    chat.clear()
                    print("We begin anew; what you asked me to remember I still know.", file=sys.stderr)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), *sys.argv[2:3])
    except (padlite.PadliteError, OSError, IndexError) as problem:
        sys.exit("usage: assistant.py FACTS.txt [PROFILE]" if isinstance(problem, IndexError) else str(problem))
