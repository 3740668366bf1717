/** Something that is asked of the controller: whether it is under way, and what went wrong. */
export class Action {
  isBusy = $state(false);
  trouble = $state('');

  /** Whether it went well. */
  async run(what: () => Promise<unknown>): Promise<boolean> {
    this.isBusy = true;
    this.trouble = '';
    try {
      await what();
      return true;
    } catch (error) {
      this.trouble = error instanceof Error ? error.message : String(error);
      return false;
    } finally {
      this.isBusy = false;
    }
  }
}
