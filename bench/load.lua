-- Checks or writes through Permify, each answer judged. `wrk -t N -c N -s load.lua URL -- check|write SEED [DOCUMENTS]`
-- One connection a thread, so that an answer belongs to the request before it.

local DOCUMENTS, USERS, STEP = 500, 200, 25 -- as in bed.py

local CHECK = '{"metadata":{"snap_token":"","schema_version":"","depth":20},'
  .. '"entity":{"type":"document","id":"%d"},"permission":"view","subject":{"type":"user","id":"%d"}}'
local WRITE = '{"metadata":{},"attributes":[],"tuples":[{"entity":{"type":"document","id":"new-%s-%d-%d"},'
  .. '"relation":"viewer","subject":{"type":"user","id":"1"}}]}'

local threads = {}

function setup(thread)
  thread:set("number", #threads)
  thread:set("wrong", 0)
  table.insert(threads, thread)
end

function init(arguments)
  kind, seed, count = arguments[1], arguments[2], 0
  DOCUMENTS = tonumber(arguments[3]) or DOCUMENTS
  math.randomseed(tonumber(seed) * 1000 + number)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. os.getenv("PERMIFY_KEY")
end

function request()
  count = count + 1
  if kind == "write" then
    wanted = "snap_token"
    return wrk.format(nil, "/v1/tenants/t1/data/write", nil, WRITE:format(seed, number, count))
  end
  -- Half of them allowed: user u may view document d when u - d is a multiple of STEP.
  local document, user = math.random(0, DOCUMENTS - 1), math.random(0, USERS - 1)
  if math.random() < 0.5 then
    user = document % STEP + STEP * math.random(0, USERS / STEP - 1)
  end
  wanted = (user - document) % STEP == 0 and "CHECK_RESULT_ALLOWED" or "CHECK_RESULT_DENIED"
  return wrk.format(nil, "/v1/tenants/t1/permissions/check", nil, CHECK:format(document, user))
end

function response(status, headers, body)
  if status ~= 200 or not body:find(wanted, 1, true) then
    wrong = wrong + 1
    example = status .. " " .. body:gsub("%c", " "):gsub('["\\]', ""):sub(1, 200)
  end
end

function done(summary, latency, requests)
  local wrong, example = 0, ""
  for _, thread in ipairs(threads) do
    wrong = wrong + thread:get("wrong")
    example = thread:get("example") or example
  end
  local broken = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(("\n" .. '{"answers": %d, "seconds": %.6f, "failed": %d, "p50": %.3f, "p99": %.3f, "example": "%s"}' .. "\n"):format(
    summary.requests, summary.duration / 1e6, wrong + broken,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, example))
end
