"""`watch` and `cancel` a job; `status` of the server."""

import click

from client.commands.batches import report_batch
from client.commands.imports import report_import
from client.commands.session import EXIT_FAILED, Session, pass_session
from client.output import plain, print_search


@click.command("watch")
@click.argument("job_id", metavar="JOB")
@pass_session
def watch(session: Session, job_id: str) -> None:
    """Follow a JOB until it ends, then print what it did."""
    job = session.follow(session.api.job(job_id))
    if job["kind"] == "import":
        report_import(session, job)
        return
    if job["kind"] == "batch_search":
        if session.as_json:
            session.print_json(job)
        report_batch(session, job)
        return
    result = session.require_success(job)
    if session.as_json:
        session.print_json(job)
    else:
        print_search(session.out, result)


@click.command("cancel")
@click.argument("job_id", metavar="JOB")
@pass_session
def cancel(session: Session, job_id: str) -> None:
    """Cancel a JOB that has not ended."""
    job = session.api.cancel(job_id)
    if session.as_json:
        session.print_json(job)
    else:
        session.out.print(plain(f"job {job['id']} {job['status']}"))


@click.command("status", epilog="Exit status: 0 ready, 1 not ready or out of reach.")
@pass_session
def status(session: Session) -> None:
    """Say whether the server can take work, part by part."""
    readiness = session.api.readiness()
    if session.as_json:
        session.print_json(readiness)
    else:
        session.out.print(plain(f"{session.api.server} is {'ready' if readiness['ready'] else 'not ready'}"))
        for part, state in readiness["checks"].items():
            session.out.print(plain(f"  {part}: {state}"))
        for warning in readiness.get("warnings", {}).values():
            session.out.print(plain(f"  warning: {warning}"))
        session.out.print(plain(f"  workers: {readiness['search_workers']} search, {readiness['bulk_workers']} bulk"))
    if not readiness["ready"]:
        raise SystemExit(EXIT_FAILED)
