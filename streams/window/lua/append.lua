-- Append consecutive committed messages to the window of one project.
--
-- KEYS[1]  the project's stream
-- ARGV[1]  size of the window, in messages
-- ARGV[2]  idle expiry, in milliseconds
-- ARGV[3]  'append'; 'restart': on a hole, drop the stream and start with these;
--          'replace': always do so
-- ARGV[4]  when they are published, unix time in microseconds
-- ARGV[5]  how many bytes the stream may hold
-- ARGV[6]  seq of the first message
-- ARGV[7…] data of the messages, one JSON text each, seqs ascending without a hole
--
-- Returns {status, hi}, hi being the last message number of the stream (0: none):
--   'ok'        all of them are in the stream, were trimmed from it, or are older than it
--   'hole'      nothing was written: the messages between hi and the first are missing here.
--               On an empty stream too, unless the run starts with message 1. The caller then
--               sends the newest messages of the log with 'restart'
--   'diverged'  nothing was written: the stream has another message, or none, under a seq given
--               here (the log was restored from a backup, or another program wrote entries). The
--               caller sends the newest messages of the log with 'replace'
--
-- This script is the only writer of messages, so they stay a contiguous run (docs/design.md, I2).
-- Repeats are no-ops.

local MAX_SEQ = 2 ^ 53 - 1
local key = KEYS[1]
local window, expiry_ms, how, at = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local bound_bytes, first = tonumber(ARGV[5]), tonumber(ARGV[6])
local last = first + (#ARGV - 7)
-- A full window of messages up to this size takes half of the bound; the other half is for
-- transient entries. Only a larger message makes counting the bytes necessary.
local large = bound_bytes / window / 2

-- include cut_to_bytes

local function id_of(seq)
  -- Lua would write large numbers as 1e+15.
  return string.format('%.0f-0', seq)
end

local function message_id(data)
  local readable, decoded = pcall(cjson.decode, data)
  return readable and type(decoded) == 'table' and decoded['messageId'] or data
end

local hi = 0
local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
if newest[1] then
  hi = tonumber(string.match(newest[1][1], '^(%d+)'))
  if hi > MAX_SEQ then
    -- No message has such a number, and nothing could be appended after it.
    redis.call('DEL', key)
    hi = 0
  end
end

local start_anew = how == 'replace'
if not start_anew then
  -- On an empty stream hi is 0: anything but message 1 leaves a hole.
  if first > hi + 1 then
    if how ~= 'restart' then
      return {'hole', hi}
    end
    start_anew = true
  elseif first <= hi then
    local shared = math.min(last, hi)
    local there = redis.call('XRANGE', key, id_of(shared), id_of(shared))
    if there[1] then
      local given = ARGV[7 + (shared - first)]
      local stored = there[1][2][4]
      if stored ~= given and message_id(stored) ~= message_id(given) then
        return {'diverged', hi}
      end
    else
      -- The run is older than the stream, or an entry inside the stream was deleted by hand.
      local oldest = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)
      if tonumber(string.match(oldest[1][1], '^(%d+)')) < shared then
        return {'diverged', hi}
      end
    end
  end
end

if start_anew then
  redis.call('DEL', key)
  hi = 0
end

if last > hi then
  local has_large = false
  for seq = math.max(first, hi + 1, last - window + 1), last do
    local data = ARGV[7 + (seq - first)]
    redis.call('XADD', key, id_of(seq), 'event', 'message.new', 'data', data, 'at', at)
    has_large = has_large or #data > large
  end
  if last > window then
    redis.call('XTRIM', key, 'MINID', '=', id_of(last - window + 1))
  end
  if has_large then
    cut_to_bytes(key, bound_bytes)
  end
  hi = last
end
redis.call('PEXPIRE', key, expiry_ms)
return {'ok', hi}
