"""The command ``serve``; the service itself is in ``service.server``."""

from __future__ import annotations

import click

from agentic_ray.cli import options


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--token",
    envvar="AGENTIC_RAY_TOKEN",
    help="A token that may do all; this or --tokens is needed for a --host that other machines "
    "reach. Better given as $AGENTIC_RAY_TOKEN: arguments can be seen by other users.",
)
@click.option(
    "--tokens",
    envvar="AGENTIC_RAY_TOKENS",
    type=click.Path(),
    metavar="FILE",
    help="Tokens of users, made by `agentic-ray token create`; each sees its own jobs only.",
)
@click.option("--oidc-issuer", metavar="URL", help="Take tokens of this OpenID Connect provider.")
@click.option("--oidc-audience", metavar="NAME", help="The audience that they must be for.")
@click.option(
    "--oidc-keys",
    metavar="FILE|URL",
    help="The provider's public keys (JWKS): a file or an https:// URL.",
)
@click.option(
    "--oidc-owner-claim",
    default="sub",
    show_default=True,
    help="The claim that is the owner of jobs; it must be one that users cannot choose.",
)
@click.option(
    "--oidc-scope-claim",
    default="scope",
    show_default=True,
    help="The claim with agentic-ray:read, agentic-ray:submit or agentic-ray:admin.",
)
@click.option("--tls-cert", type=click.Path(), metavar="FILE", help="Certificate (PEM) for HTTPS.")
@click.option("--tls-key", type=click.Path(), metavar="FILE", help="Its key (PEM).")
@click.option(
    "--behind-proxy",
    is_flag=True,
    envvar="AGENTIC_RAY_BEHIND_PROXY",
    help="A proxy with TLS stands before the service and nobody reaches it otherwise: it may "
    "listen on other addresses than loopback without TLS of its own.",
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="A site whose pages may send requests, such as https://jobs.example.org; may be repeated.",
)
@click.option(
    "--data",
    type=click.Path(),
    metavar="FOLDER",
    help="Where uploaded data is kept.  [default: beside the journal, else until the end]",
)
@click.option(
    "--max-upload-bytes",
    default=1 << 30,
    show_default=True,
    type=click.IntRange(min=1),
    help="Largest file that can be uploaded.",
)
@click.option(
    "--audit",
    type=click.Path(),
    metavar="FILE",
    help="Audit log: who submitted, cancelled and uploaded, and who was refused.",
)
@click.option(
    "--max-connections",
    default=1024,
    show_default=True,
    type=click.IntRange(min=1),
    help="Connections open at once.",
)
@click.option(
    "--webhook",
    "webhooks",
    multiple=True,
    metavar="URL",
    help="Told of each job that has ended, by POST, signed with --webhook-secret; may be repeated.",
)
@click.option(
    "--webhook-secret",
    envvar="AGENTIC_RAY_WEBHOOK_SECRET",
    help="By which receivers know us. Better given as $AGENTIC_RAY_WEBHOOK_SECRET.",
)
@click.option(
    "--webhook-state",
    type=click.Path(),
    metavar="FILE",
    help="Remembers which ends were told, so that those that were missed are told when the service "
    "comes back.  [default: beside the journal]",
)
@options.workload_files
@click.option("--max-running", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--max-queued", default=10_000, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--max-queued-bytes",
    default=512 << 20,
    show_default=True,
    type=click.IntRange(min=1),
    help="Parameters, as JSON text, of jobs that wait; more is refused.",
)
@click.option(
    "--drain-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long accepted jobs may go on after SIGTERM; then they stay in the journal, or are "
    "cancelled where there is none. Runners and Ray end after that, in some seconds.",
)
@click.option(
    "--journal",
    default="none",
    show_default=True,
    metavar="PATH|URL|none",
    help="Where accepted jobs outlive this process: a file or directory, or a PostgreSQL URL. "
    "With none they are in memory only.",
)
@click.option(
    "--cache-bytes",
    default=256 << 20,
    show_default=True,
    type=click.IntRange(min=0),
    help="Results kept to answer equal jobs at once; 0 turns that off.",
)
@click.option("--max-queued-per-user", type=click.IntRange(min=1))
@click.option("--max-running-per-user", type=click.IntRange(min=1))
@click.option(
    "--runners",
    default=2,
    show_default=True,
    type=click.IntRange(min=1),
    help="Processes for jobs that are kept ready; as many as --max-running are started on demand.",
)
@click.option(
    "--memory-bytes",
    type=click.IntRange(min=1),
    help="By so much the process of a job may grow whose workload says nothing else; then it is "
    "killed and the job fails.",
)
@click.option(
    "--max-attempts",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="A job that has ended so many processes is not run again.",
)
@click.option(
    "--master",
    metavar="NAME",
    help="Serve a master that runs in the cluster (`agentic-ray master start NAME`), and may be "
    "restarted apart from this process. It has the journal, the workloads and the limits of jobs.",
)
@options.log_format
@options.otel
@options.namespace
@options.session
@click.pass_context
def serve(
    context: click.Context,
    host: str,
    port: int,
    token: str | None,
    tokens: str | None,
    oidc_issuer: str | None,
    oidc_audience: str | None,
    oidc_keys: str | None,
    oidc_owner_claim: str,
    oidc_scope_claim: str,
    tls_cert: str | None,
    tls_key: str | None,
    behind_proxy: bool,
    origins: tuple[str, ...],
    data: str | None,
    max_upload_bytes: int,
    audit: str | None,
    max_connections: int,
    webhooks: tuple[str, ...],
    webhook_secret: str | None,
    webhook_state: str | None,
    files: tuple[str, ...],
    max_running: int,
    max_queued: int,
    max_queued_bytes: int,
    drain_seconds: float,
    journal: str,
    cache_bytes: int,
    max_queued_per_user: int | None,
    max_running_per_user: int | None,
    runners: int,
    memory_bytes: int | None,
    max_attempts: int,
    master: str | None,
    log_format: str | None,
    otel: bool | None,
    namespace: str | None,
    address: str | None,
    num_cpus: int | None,
) -> None:
    """Run jobs that come in over HTTP, until SIGTERM or Ctrl-C.

    \b
    agentic-ray serve --port 8080
    curl -X POST -H 'Content-Type: application/json' -d '{"data": [1, 2, 3, 4, 5]}' \\
         http://127.0.0.1:8080/submit
    """
    from agentic_ray.service.oidc import OpenIdSettings
    from agentic_ray.service.server import ServerSettings
    from agentic_ray.service.server import serve as serve_until_signal

    openid = None
    if any((oidc_issuer, oidc_audience, oidc_keys)):
        openid = OpenIdSettings(
            oidc_issuer or "",
            oidc_audience or "",
            oidc_keys or "",
            oidc_owner_claim,
            oidc_scope_claim,
        )
    settings = ServerSettings(
        host=host,
        port=port,
        token=token,
        tokens=tokens,
        tls_cert=tls_cert,
        tls_key=tls_key,
        behind_proxy=behind_proxy,
        origins=origins,
        data=data,
        max_upload_bytes=max_upload_bytes,
        audit=audit,
        max_connections=max_connections,
        webhooks=webhooks,
        webhook_secret=webhook_secret,
        webhook_state=webhook_state,
        workloads=files,
        address=address,
        num_cpus=num_cpus,
        max_running=max_running,
        max_queued=max_queued,
        max_queued_bytes=max_queued_bytes,
        drain_seconds=drain_seconds,
        journal=None if journal == "none" else journal,
        cache_bytes=cache_bytes,
        max_queued_per_user=max_queued_per_user,
        max_running_per_user=max_running_per_user,
        runners=runners,
        memory_bytes=memory_bytes,
        max_attempts=max_attempts,
        master=master,
        namespace=namespace,
        openid=openid,
        log_format=log_format,
        otel=otel,
    )
    context.exit(serve_until_signal(settings, lambda line: click.echo(line)))
