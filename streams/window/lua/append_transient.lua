-- Append transient entries to the window of one project.
--
-- KEYS[1]  the project's stream
-- ARGV[1]  idle expiry, in milliseconds
-- ARGV[2]  when they are published, unix time in microseconds
-- ARGV[3]  the log's head, used only on an empty stream; '': write nothing on an empty stream
-- ARGV[4]  seq and
-- ARGV[5]  k of the newest entry that the caller appended: a stream that was lost does not give
--          out its id again
-- ARGV[6]  how many entries the stream may hold, messages included
-- ARGV[7]  how many bytes the stream may hold
-- ARGV[8]  name of the event
-- ARGV[9]  '', or a hash of the same slot: build -> its highest revision that was appended
-- ARGV[10] the build that these entries are about (ARGV[9] '': not used)
-- ARGV[11…] revision and data of each entry, revisions ascending; data is a JSON object without
--          entryId. An entry whose revision was appended before is left out
--
-- Returns the ids of the entries that were appended, 'n-k': n is the stream's own last message
-- number. With a higher n the messages up to n could no longer be appended before the entry.
-- Returns nil when the stream is empty and ARGV[3] is ''.
--
-- Above ARGV[6] entries the oldest transient entries are deleted, down to two thirds of it.
-- Messages are not deleted, nor is the first entry of each status and attempt of a build, because
-- readers must see every change of status. Only when the stream is still more than a sixth above
-- ARGV[6] are the oldest of those deleted too.
-- Above ARGV[7] bytes the oldest messages are deleted first.

local key = KEYS[1]
local expiry_ms, at, head = ARGV[1], ARGV[2], ARGV[3]
local floor_seq, floor_k, bound = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local bound_bytes = tonumber(ARGV[7])
local event, revisions, build = ARGV[8], ARGV[9], ARGV[10]
local MAX_SEQ = 2 ^ 53 - 1
local REVISIONS_KEPT, REVISIONS_EXPIRY_MS = 1000, 3600000
-- A full stream of entries up to this size takes half of the bound in bytes; the other half is
-- for messages. Only a larger entry makes counting the bytes necessary.
local large = bound_bytes / bound / 2

-- include cut_to_bytes

local seq, k = head, 0
local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
if newest[1] then
  local s, n = string.match(newest[1][1], '^(%d+)-(%d+)$')
  if tonumber(s) > MAX_SEQ or tonumber(n) > MAX_SEQ then
    -- No entry of ours has such an id, and nothing could be appended after it.
    redis.call('DEL', key)
    newest = {}
  else
    seq, k = s, tonumber(n)
  end
end
if not newest[1] and head == '' then
  return nil
end
if seq == floor_seq and floor_k > k then
  k = floor_k
end

local known = 0
-- When the stream is empty, the revisions are those of a stream that was lost: they do not count.
if revisions ~= '' and newest[1] then
  known = tonumber(redis.call('HGET', revisions, build) or '0')
end

local ids = {}
local has_large = false
for i = 11, #ARGV, 2 do
  local revision, data = tonumber(ARGV[i]), ARGV[i + 1]
  if revisions == '' or revision > known then
    k = k + 1
    local id = string.format('%s-%.0f', seq, k)
    local rest = string.sub(data, 2)
    if rest ~= '}' then
      rest = ',' .. rest
    end
    redis.call('XADD', key, id, 'event', event, 'data', '{"entryId":"' .. id .. '"' .. rest,
               'at', at)
    ids[#ids + 1] = id
    has_large = has_large or #data > large
    known = revision
  end
end
if revisions ~= '' and #ids > 0 then
  if redis.call('HLEN', revisions) >= REVISIONS_KEPT then
    redis.call('DEL', revisions)
  end
  redis.call('HSET', revisions, build, string.format('%.0f', known))
  redis.call('PEXPIRE', revisions, REVISIONS_EXPIRY_MS)
end

local function change_of(entry)
  local fields = entry[2]
  if fields[2] ~= 'build.status' then
    return nil
  end
  local readable, status = pcall(cjson.decode, fields[4])
  if not readable or type(status) ~= 'table' or type(status['content']) ~= 'table' then
    return nil
  end
  local content = status['content']
  return tostring(content['buildId']) .. '/' .. tostring(content['attempt']) .. '/'
    .. tostring(status['status'])
end

local surplus_bytes = has_large and cut_to_bytes(key, bound_bytes) or 0
local excess = redis.call('XLEN', key) - bound
-- Only at each 50th append above the bound: when every entry must stay, a scan deletes nothing.
local has_excess = excess > 0 and excess % 50 <= #ids
if has_excess or surplus_bytes > 0 then
  excess = has_excess and excess + math.floor(bound / 3) or 0
  local seen, changes = {}, {}
  for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do
    if (excess > 0 or surplus_bytes > 0) and string.sub(entry[1], -2) ~= '-0' then
      local change = change_of(entry)
      if change and not seen[change] then
        seen[change] = true
        changes[#changes + 1] = entry
      elseif entry[1] ~= ids[#ids] then
        redis.call('XDEL', key, entry[1])
        excess = excess - 1
        surplus_bytes = surplus_bytes - #entry[2][4]
      end
    end
  end
  local over = redis.call('XLEN', key) - bound - math.floor(bound / 6)
  for i, entry in ipairs(changes) do
    if (i <= over or surplus_bytes > 0) and entry[1] ~= ids[#ids] then
      redis.call('XDEL', key, entry[1])
      surplus_bytes = surplus_bytes - #entry[2][4]
    end
  end
end
redis.call('PEXPIRE', key, expiry_ms)
return ids
