"""The listeners of a test broker that ask who is there, and what their users may do.

Beside PLAINTEXT, where everybody is the operator and may do all, each broker has

    scram    SASL_SSL, SCRAM-SHA-512: users that `add_user` makes
    mtls     SSL: a certificate of the broker's own authority; the common name is the user
    oauth    SASL_SSL, OAUTHBEARER: a token of `issuer`; its subject is the user

and Kafka's StandardAuthorizer, which lets a user do what `allow` granted and nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.servers.certificates import Certificates
from tests.servers.oauth import AUDIENCE, ISSUER, Issuer
from tests.servers.process import free_port

# The user is what the certificate calls itself, not the whole distinguished name.
_COMMON_NAME = r"RULE:^.*CN=([a-zA-Z0-9.-]*).*$/$1/,DEFAULT"
_TIMEOUT = 15.0


class Doors:
    """Where they are, and the files that go with them."""

    def __init__(self, folder: Path) -> None:
        self._ports = {"SCRAM": free_port(), "MTLS": free_port(), "OAUTH": free_port()}
        self.certificates = Certificates(folder)
        certificate, key = self.certificates.issue("broker")
        self.issuer = Issuer(folder)
        self._identity = folder / "identity.pem"
        self._identity.write_bytes(key.read_bytes() + certificate.read_bytes())

    @property
    def ports(self) -> list[int]:
        return list(self._ports.values())

    @property
    def scram(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self._ports['SCRAM']}"

    @property
    def mtls(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self._ports['MTLS']}"

    @property
    def oauth(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self._ports['OAUTH']}"

    @property
    def java_options(self) -> list[str]:
        """What the broker's Java needs: Kafka reads keys from addresses only that this property lists."""
        return [f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.issuer.jwks.as_uri()}"]

    def listeners(self, host: str) -> list[str]:
        return [f"{name}://{host}:{port}" for name, port in self._ports.items()]

    def properties(self) -> dict[str, str]:
        """The broker's, without the lists of listeners, which are not ours alone."""
        scram, oauth = "listener.name.scram.", "listener.name.oauth."
        bearer = "org.apache.kafka.common.security.oauthbearer.OAuthBearer"
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._identity),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificates.ca),
            f"{scram}sasl.enabled.mechanisms": "SCRAM-SHA-512",
            f"{scram}scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            f"{oauth}sasl.enabled.mechanisms": "OAUTHBEARER",
            f"{oauth}oauthbearer.sasl.jaas.config": f"{bearer}LoginModule required;",
            f"{oauth}oauthbearer.sasl.server.callback.handler.class": f"{bearer}ValidatorCallbackHandler",
            f"{oauth}sasl.oauthbearer.jwks.endpoint.url": self.issuer.jwks.as_uri(),
            f"{oauth}sasl.oauthbearer.expected.issuer": ISSUER,
            f"{oauth}sasl.oauthbearer.expected.audience": AUDIENCE,
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.mtls.ssl.principal.mapping.rules": _COMMON_NAME,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",  # whoever comes by PLAINTEXT
        }


PROTOCOLS = {"SCRAM": "SASL_SSL", "MTLS": "SSL", "OAUTH": "SASL_SSL"}


def add_user(bootstrap_servers: str, name: str, password: str) -> None:
    """A user of SCRAM-SHA-512, or another password for one."""
    change = UserScramCredentialUpsertion(
        name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), password.encode()
    )
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for done in admin.alter_user_scram_credentials([change], request_timeout=_TIMEOUT).values():
        done.result(_TIMEOUT)


def allow(
    bootstrap_servers: str, user: str, operation: str, resource: str, name: str, *, prefixed: bool = False
) -> None:
    """`allow(servers, "streamer", "Read", "topic", "texts.in")`, in the words of kafka-acls."""
    resource = resource.upper().replace("-", "_")
    kind: Any = getattr(ResourceType, "BROKER" if resource == "CLUSTER" else resource)
    operation = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()
    entry = AclBinding(
        kind,
        name,
        ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[operation],
        AclPermissionType.ALLOW,
    )
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for done in admin.create_acls([entry], request_timeout=_TIMEOUT).values():
        done.result(_TIMEOUT)
