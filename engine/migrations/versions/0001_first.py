"""Messages, jobs, replies, conversations, channels, artifacts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "messages",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("thread", sa.Text, nullable=False, index=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, index=True),
        sa.Column("received", sa.Float, nullable=False),
        sa.Column("due", sa.Float, nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("thread", sa.Text, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("memo", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, index=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("submitted", sa.Float, nullable=False),
        sa.Column("outcome", sa.Text),
    )
    op.create_table(
        "replies",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, index=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", sa.Float, nullable=False),
    )
    op.create_table("refs", sa.Column("key", sa.Text, primary_key=True), sa.Column("ref", sa.Text, nullable=False))
    op.create_table(
        "talks",
        sa.Column("thread", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("changed", sa.Float, nullable=False),
    )
    op.create_table(
        "channels", sa.Column("channel", sa.Text, primary_key=True), sa.Column("body", sa.Text, nullable=False)
    )
    op.create_table(
        "artifacts", sa.Column("sha256", sa.Text, primary_key=True), sa.Column("file", sa.Text, nullable=False)
    )
