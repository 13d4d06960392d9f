"""The tables, as migrations. Each runs once, in order, in one transaction with the record of it. A released migration
is never changed. Later changes are new migrations.

Money is whole micro-dollars (`…_micros`) or a coin's own decimal text (`…_native`). Times are unix seconds of this
machine's clock unless the name contains `api`. API keys are never stored here. Passwords are stored only in `secrets`,
which only `clore-mcp connect` reads. Env values are stored only in `watches.env`, which is cleared when its watch is
over.

No query may get slower as history grows, so each is served by an index.
"""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final = (
    """
    CREATE TABLE meta (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT;

    -- A priced intent, frozen until it expires, and the person's answer to it.
    CREATE TABLE quotes (
        id TEXT PRIMARY KEY,
        account TEXT NOT NULL,
        digest TEXT NOT NULL,            -- HMAC over account, caller and arguments; keyed because env values are in it
        verb TEXT NOT NULL,
        caller TEXT NOT NULL,
        question TEXT NOT NULL,
        terms TEXT NOT NULL,             -- JSON; names of env values, never the values
        state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'committing', 'settled', 'declined', 'expired')),
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        decided_at REAL,
        decided_by TEXT,
        owner TEXT,                      -- the process that is carrying it out
        outcome TEXT,                    -- JSON, once settled
        told INTEGER NOT NULL DEFAULT 0, -- whether a caller has received the outcome
        watch_id TEXT REFERENCES watches (id),
        replaces TEXT REFERENCES quotes (id) -- the quote whose yes it shares, as its order was unreachable; once
    ) STRICT;
    CREATE UNIQUE INDEX one_live_quote ON quotes (digest) WHERE state IN ('pending', 'approved', 'committing');
    CREATE UNIQUE INDEX one_replacement ON quotes (replaces) WHERE replaces IS NOT NULL;
    CREATE INDEX quotes_by_digest ON quotes (digest, created_at);
    CREATE INDEX quotes_newest ON quotes (digest);
    CREATE INDEX quotes_by_state ON quotes (state, account, decided_at);
    CREATE INDEX quotes_lapsed ON quotes (created_at) WHERE state = 'expired' AND decided_by IS NULL;
    CREATE INDEX quotes_of_watches ON quotes (watch_id) WHERE watch_id IS NOT NULL;

    -- A person's approval of rentals that are made later, when a suitable server is cheap enough.
    CREATE TABLE watches (
        id TEXT PRIMARY KEY,
        account TEXT NOT NULL,
        digest TEXT NOT NULL,            -- of the call that asked for it
        quote_id TEXT NOT NULL REFERENCES quotes (id),
        approved_by TEXT NOT NULL,
        ask TEXT NOT NULL,               -- JSON: the arguments, without env values
        env TEXT,                        -- JSON: the env values of its containers; NULL once the watch is over
        models TEXT NOT NULL,            -- JSON: the GPU models that the question named
        ssh_key TEXT NOT NULL,           -- fingerprint of the key that the question showed
        worst_micros INTEGER NOT NULL,   -- of one order, as the question said
        state TEXT NOT NULL CHECK (state IN ('waiting', 'fired', 'expired', 'cancelled')),
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        looked_at REAL,                  -- when the market was last checked for it
        seen_micros INTEGER,             -- USD per hour of the cheapest server that fitted then; NULL: none fitted
        best_micros INTEGER,             -- the same for the cheapest ever
        said TEXT                        -- what prevented renting a server that was cheap enough
    ) STRICT;
    CREATE INDEX watches_waiting ON watches (account) WHERE state = 'waiting';
    CREATE INDEX watches_newest ON watches (account, created_at);
    CREATE INDEX watches_of_quotes ON watches (quote_id);

    -- A create on its way, from reservation to outcome.
    CREATE TABLE intents (
        id TEXT PRIMARY KEY,
        account TEXT NOT NULL,
        quote_id TEXT NOT NULL REFERENCES quotes (id),
        verb TEXT NOT NULL,
        server_id INTEGER NOT NULL,
        image TEXT NOT NULL,
        order_type TEXT NOT NULL,
        coin TEXT NOT NULL,
        known_order_ids TEXT NOT NULL,   -- JSON list: the orders listed before the send
        state TEXT NOT NULL
            CHECK (state IN ('reserved', 'sending', 'adopted', 'failed', 'refused', 'uncertain', 'abandoned')),
        owner TEXT NOT NULL,
        created_at REAL NOT NULL,
        not_after REAL,                  -- the owner must not send later than this
        sent_api_at REAL,                -- Clore's clock then: a much older or younger order is not this one
        acknowledged INTEGER NOT NULL DEFAULT 0, -- Clore answered code 0
        order_id INTEGER,
        reason TEXT
    ) STRICT;
    CREATE INDEX intents_open ON intents (account, state);
    CREATE INDEX intents_by_state ON intents (state, account, created_at);
    CREATE INDEX intents_of_servers ON intents (account, server_id, state, created_at);
    CREATE INDEX intents_of_quotes ON intents (quote_id);
    CREATE INDEX intents_of_orders ON intents (account, order_id) WHERE order_id IS NOT NULL;

    -- The worst case of an order, counted against the limits until the actual cost is known. An order made elsewhere
    -- has a reservation without an intent, from when its bid is raised here or it gets an end here.
    CREATE TABLE reservations (
        id INTEGER PRIMARY KEY,
        intent_id TEXT UNIQUE REFERENCES intents (id),
        account TEXT NOT NULL,
        order_id INTEGER,
        coin TEXT NOT NULL,
        worst_micros INTEGER NOT NULL CHECK (worst_micros >= 0),
        hourly_micros INTEGER NOT NULL CHECK (hourly_micros >= 0),
        created_at REAL NOT NULL,
        released_at REAL,
        actual_micros INTEGER,
        bidding TEXT,                    -- the quote whose bid is on its way, or 'several'
        missed_at REAL,                  -- first valid reply in which an order made elsewhere was missing
        ends_api_at INTEGER              -- the end given to such an order, on Clore's clock
    ) STRICT;
    CREATE INDEX reservations_open ON reservations (account) WHERE released_at IS NULL;
    CREATE INDEX reservations_of_orders ON reservations (account, order_id);
    CREATE INDEX reservations_released ON reservations (account, released_at, order_id, actual_micros)
        WHERE released_at IS NOT NULL;
    CREATE INDEX reservations_elsewhere ON reservations (account, released_at) WHERE intent_id IS NULL;

    -- An order made here, with its lease.
    CREATE TABLE orders (
        account TEXT NOT NULL,
        order_id INTEGER NOT NULL,
        intent_id TEXT NOT NULL REFERENCES intents (id),
        digest TEXT NOT NULL,
        server_id INTEGER NOT NULL,
        order_type TEXT NOT NULL,
        image TEXT NOT NULL,
        coin TEXT NOT NULL,
        price_native TEXT NOT NULL,
        ceiling_native TEXT NOT NULL,    -- per day: the highest price approved
        fee_fraction TEXT NOT NULL,
        creation_fee_micros INTEGER NOT NULL,
        usd_per_coin TEXT NOT NULL,
        started_api_at INTEGER NOT NULL, -- Clore's clock
        ends_api_at INTEGER NOT NULL,
        on_end TEXT NOT NULL CHECK (on_end IN ('cancel', 'notify')),
        missed_at REAL,                  -- first valid reply in which it was missing
        ended_at REAL,
        receipt TEXT,                    -- JSON, once proven gone
        PRIMARY KEY (account, order_id)
    ) STRICT;
    CREATE INDEX orders_running ON orders (account, order_id) WHERE ended_at IS NULL;
    CREATE INDEX orders_ended ON orders (account, ended_at) WHERE ended_at IS NOT NULL;
    CREATE INDEX orders_missed ON orders (account, ended_at) WHERE missed_at IS NOT NULL;
    CREATE INDEX orders_by_id ON orders (order_id);

    -- Passwords and tokens generated here, for `clore-mcp connect` only.
    CREATE TABLE secrets (
        intent_id TEXT NOT NULL REFERENCES intents (id),
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (intent_id, name)
    ) STRICT;

    -- One row per step, never changed.
    CREATE TABLE ledger (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        account TEXT NOT NULL,
        step TEXT NOT NULL,
        caller TEXT NOT NULL,
        quote_id TEXT,
        intent_id TEXT,
        order_id INTEGER,
        server_id INTEGER,
        data TEXT NOT NULL
    ) STRICT;
    CREATE INDEX ledger_of_accounts ON ledger (account);
    CREATE INDEX ledger_by_step ON ledger (account, step, at);
    CREATE INDEX ledger_of_orders ON ledger (account, order_id, step) WHERE order_id IS NOT NULL;
    CREATE TRIGGER ledger_keeps_rows BEFORE DELETE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
    CREATE TRIGGER ledger_keeps_text BEFORE UPDATE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
    -- INSERT OR REPLACE deletes without firing the trigger above, on a connection that has recursive triggers off.
    CREATE TRIGGER ledger_takes_new_rows BEFORE INSERT ON ledger
    WHEN EXISTS (SELECT 1 FROM ledger WHERE seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

    -- What identifies an account: digests of its deposit addresses and keys, each with the API URL.
    CREATE TABLE accounts (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL CHECK (kind IN ('address', 'key')),
        name TEXT NOT NULL,
        account TEXT NOT NULL
    ) STRICT;
    CREATE INDEX accounts_by_name ON accounts (name);

    -- Which processes are alive to end leases.
    CREATE TABLE heartbeats (
        account TEXT NOT NULL,
        owner TEXT NOT NULL,
        host TEXT NOT NULL,
        at REAL NOT NULL,
        PRIMARY KEY (account, owner)
    ) STRICT;
    """,
)
