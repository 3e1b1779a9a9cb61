-- wrk script: chats of TURNS turns (default 5). 64 of them advance in step, so that with at most 32 requests in flight
-- every turn's predecessor has been answered. Environment: STREAM=1 asks for server-sent events, RUN tells runs apart.

local SIDE_BY_SIDE = 64
local turns = tonumber(os.getenv("TURNS") or "5")
local run = os.getenv("RUN") or tostring(os.time())
local head = '{"model":"instant","max_tokens":16,' .. (os.getenv("STREAM") == "1" and '"stream":true,' or "")
local headers = { ["Content-Type"] = "application/json" }

local function said(role, text)
  return '{"role":"' .. role .. '","content":"' .. text .. '"}'
end

local system = said("system", string.rep("Answer in few words and only what you are sure of. ", 20))
local answered = said("assistant", "good day")
local question = string.rep("Say a little more about the rivers of the north. ", 4)

local sent = 0

function request()
  local round = math.floor(sent / SIDE_BY_SIDE)
  local chat = math.floor(round / turns) * SIDE_BY_SIDE + sent % SIDE_BY_SIDE
  local messages = { system }
  for turn = 1, round % turns + 1 do
    if turn > 1 then
      messages[#messages + 1] = answered
    end
    messages[#messages + 1] = said("user", run .. "/" .. chat .. "/" .. turn .. " " .. question)
  end
  sent = sent + 1
  return wrk.format("POST", "/v1/chat/completions", headers, head .. '"messages":[' .. table.concat(messages, ",") .. "]}")
end

function done(summary, latency)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    'RESULT {"turns":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6, errors.status, broken,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
