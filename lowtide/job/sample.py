"""The job file that `lowtide init` writes: it runs as it is, on this machine and at no price."""

from __future__ import annotations

SAMPLE = """\
# A Lowtide job: what to read, what to ask about it, where to have it answered, and where to write.
version: 1
name: my-documents                # lower-case letters, digits and hyphens; stands in paths

source:
  uri: ./documents/**/*.md        # a path or s3:// address; relative paths begin at this file's folder
  format: auto                    # auto text markdown html pdf docx eml jsonl csv parquet
  window_by: modified             # what `lowtide run --window 2026-W47` goes by
  # For jsonl, csv and parquet, where every row is a document:
  # text: body                    # the field with the text
  # id: ticket_id                 # the field with the row's key
  # fields: [customer, lang]      # carried into the results, and usable in prompts as {{ customer }}

# timezone: Europe/Paris          # windows begin and end at midnights there; UTC if it is left out
# schedule:                       # which windows `--window last` and deployments go through, and when
#   every: week                   # hour day week month year, or 10d, 2w and the like
#   at: mon 02:00                 # a day: 18:00; a month: 1 06:00; an hour: :15; or cron: "0 2 * * mon"
#   lateness: 2d                  # windows that ended so long ago are looked at again for late documents

operations:                       # one row of results for each document and operation
  - summarize: {words: 60}
  - classify:
      name: topic
      labels:                     # at least two; what a label means helps to choose it
        guide: how to install, set up or use something
        reference: a description of options, functions or formats
        news: a release, a change or an announcement

backends:
  - local: {}                     # this machine: no account, no price

deadline: 24h
# budget: {run_usd: 25}
# limits: {attempts: 3, shard_records: 10000, poll: 60s, grace: 120s}

output:
  root: ./out                     # tables/results is for pandas, DuckDB, Power BI and the like
  # tags: {team: support}         # copied into the cost ledger
"""
