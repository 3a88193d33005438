"""A chain: each activity gets what the one before it returned.

    python -m shardrt.samples sequential '"  two  words "'

The code reads from top to bottom. Killed between two lines, it goes on with the next one:
what was returned is recorded, and no activity that has an outcome runs again.
"""

from dataclasses import dataclass

from shardrt import App, OrchestrationContext

app = App()


@dataclass(frozen=True)
class Draft:
    """A text on its way to the printer."""

    title: str
    words: list[str]


@app.activity
async def read_draft(text: str) -> Draft:
    words = text.split()
    return Draft(title=words[0] if words else "untitled", words=words)


@app.activity
async def edit_draft(draft: Draft) -> Draft:
    return Draft(draft.title.capitalize(), [word.lower() for word in draft.words])


@app.activity
async def print_draft(draft: Draft) -> str:
    return f"{draft.title}: {' '.join(draft.words)} ({len(draft.words)} words)"


@app.orchestrator
async def sequential(ctx: OrchestrationContext, text: str | None = None) -> str:
    draft = await ctx.call_activity(read_draft, text or "HELLO again WORLD")
    ctx.set_custom_status(f"editing {draft.title}")
    edited = await ctx.call_activity(edit_draft, draft)
    return await ctx.call_activity(print_draft, edited)
