-- Neovim's own language client against `weir lsp`, which asks the weir at WEIR_SERVER. Each check
-- that holds says "ok"; the first that does not ends Neovim with status 1.
--
-- Neovim asks for inline completions by itself from 0.12 on; older ones send what they are told to.

local METHOD = 'textDocument/inlineCompletion'
local PATIENCE_MS = 30000
local AUTOMATIC = 2

local function check(is_so, what, found)
  if not is_so then
    error(what .. ': ' .. vim.inspect(found))
  end
  io.stdout:write('ok ' .. what .. '\n')
end

local function session()
  local left
  vim.cmd('edit crab.py')
  vim.bo.fileformat = 'dos'
  -- A cursor may stand behind a line's last character, as it does while somebody types.
  vim.o.virtualedit = 'onemore'
  vim.api.nvim_buf_set_lines(0, 0, -1, true, { 's = "🦀"', 'def add(a, b):', '    pass', '' })
  local id = vim.lsp.start_client({
    cmd = { vim.env.WEIR_BINARY, 'lsp', '--server', vim.env.WEIR_SERVER },
    root_dir = vim.fn.getcwd(),
    on_exit = function(code)
      left = code
    end,
  })
  -- By its number: with 0, Neovim 0.7 asks before it has sent what was changed.
  local buffer = vim.api.nvim_get_current_buf()
  vim.lsp.buf_attach_client(buffer, id)
  local client = vim.lsp.get_client_by_id(id)
  local started = vim.wait(PATIENCE_MS, function()
    return client.initialized
  end)
  check(started and client.server_capabilities.inlineCompletionProvider, 'it can', client)

  -- Behind a character that is two units, so that the client has to convert.
  vim.api.nvim_buf_set_text(0, 0, 10, 0, 10, { ' + "🐢🐢"' })
  vim.api.nvim_buf_set_text(0, 2, 4, 2, 8, { 'return ' })
  vim.api.nvim_win_set_cursor(0, { 3, 11 })
  local function params()
    local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
    params.context = { triggerKind = AUTOMATIC }
    return params
  end
  local answer = client.request_sync(METHOD, params(), PATIENCE_MS, buffer)
  check(answer and answer.result and #answer.result == 1, 'it suggests', answer)
  local item = answer.result[1]
  check(item.range.start.line == 2 and item.range.start.character == 11, 'at the cursor', item)

  local edit = { range = item.range, newText = item.insertText }
  vim.lsp.util.apply_text_edits({ edit }, 0, client.offset_encoding)
  local line = vim.api.nvim_buf_get_lines(0, 2, 3, true)[1]
  local first = vim.split(item.insertText, '\n')[1]
  check(line == '    return ' .. first, 'it can be accepted', line)

  -- At the end of a line behind characters outside the BMP, and cancelled.
  vim.api.nvim_win_set_cursor(0, { 1, #vim.api.nvim_get_current_line() })
  local _, request = client.request(METHOD, params(), function() end, buffer)
  client.cancel_request(request)
  local again = client.request_sync(METHOD, params(), PATIENCE_MS, buffer)
  check(again and again.err == nil and not vim.tbl_isempty(again), 'it goes on', again)

  client.stop()
  vim.wait(PATIENCE_MS, function()
    return left ~= nil
  end)
  check(left == 0, 'it ends well', left)
end

local is_good, complaint = pcall(session)
if not is_good then
  io.stderr:write(complaint .. '\n')
end
vim.cmd(is_good and 'qall!' or 'cquit!')
